"""Noise in the shape of an Avro record: as many different numbers, with as many digits, as real packets have."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.alerts.portal import FACTS
from tests.alerts.schemas import AvroSchema

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
Row = dict[str, Any]

_WORDS = ("Unknown", "nan", "Star", "Galaxy", "QSO", "EB*", "RRLyr", "V*", "AGN_Candidate", "LPV*_Candidate", "δ Sct")
#: Columns that lie between 0 and 1, so that a filter on them keeps some alerts.
_SHARES = frozenset(
    {
        *("rb", "drb", "classtar", "mulens", "reliability", "extendedness", "legacydr8_pstar", "cats_score"),
        *("rf_snia_vs_nonia", "snn_snia_vs_nonia", "snn_sn_vs_all", "rf_kn_vs_nonkn", "snnSnVsOthers_score"),
    }
)
#: Fewer different ones than this share are drawn from a few.
_FEW = 0.5


@cache
def portal_facts(survey: str) -> dict[str, Any]:
    """Return what is known of the full packets of a survey: see `tests.alerts.portal.describe`."""
    facts: dict[str, Any] = json.loads(FACTS.read_text())[f"{survey}-full"]
    return facts


class Noise:
    """Makes rows of the records of a survey: the known columns, and noise in all others."""

    def __init__(self, survey: str, rng: np.random.Generator) -> None:
        self._fields = portal_facts(survey)["fields"]
        # Where the noise comes from.
        self._rng = rng

    def rows(self, schema: AvroSchema, count: int, known: Columns, path: str = "", absent: float = 0.0) -> list[Row]:
        """Make rows of a record.

        `schema`: an Avro record of nullable primitives, and of nested types that are all known.
        `known`: values of some columns by name, `count` of each. Names that the record lacks are ignored.
        `path`: where the record is in a full packet, with a dot at its end.
        `absent`: the share of records that are emptied afterwards: it makes up for some of the nulls in real packets.
        """
        # What is null, or is no number, is so together: a measurement that has not been made has no values at all.
        nulls, nans = self._rng.random(count), self._rng.random(count)
        names = [field["name"] for field in schema["fields"]]
        columns: list[Sequence[Any]] = []
        for name in names:
            if name in known:
                values = known[name]
                columns.append(values.tolist() if isinstance(values, np.ndarray) else values)
                continue
            facts = self._fields[path + name]
            column = self._column(name, facts, count, nans)
            missing = nulls < max(facts.get("null", 0) - absent, 0) / (1 - absent)
            columns.append([None if none else value for value, none in zip(column, missing, strict=True)])
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _column(self, name: str, facts: dict[str, Any], count: int, nans: NDArray[np.float64]) -> list[Any]:
        rng, kind = self._rng, facts["type"]
        if kind == "boolean":
            return list((rng.random(count) < max(facts.get("true", 0), 0.01)).tolist())
        few = facts.get("distinct", 0) < _FEW * facts.get("of", 1) and "distinct" in facts
        if kind == "string":
            return _texts(name, facts, count, rng, few)
        if few:
            # The same few in each block of alerts.
            pool = _numbers(name, facts, facts["distinct"], np.random.default_rng(zlib.crc32(name.encode())))
            values = pool[rng.integers(0, len(pool), count)]
        else:
            values = _numbers(name, facts, count, rng)
        if "nan" in facts:
            values = np.where(nans < facts["nan"], np.nan, values)
        return list(values.tolist())


def with_nulls(values: Sequence[Any], rng: np.random.Generator, share: float) -> list[Any]:
    """Copy a column with some of its values replaced by null.

    `share`: share of nulls, at least 0 and at most 1.
    """
    column = list(values)
    for index in rng.integers(0, max(len(column), 1), rng.binomial(len(column), share)):
        column[index] = None
    return column


def _numbers(name: str, facts: dict[str, Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw numbers about as far from 0 as real ones, with as many digits."""
    kind = facts["type"]
    scale = 10.0 ** facts["log"] if "log" in facts else 0.0
    negative = rng.random(count) < facts.get("negative", 0)
    if kind in {"int", "long"}:
        sizes = rng.integers(int(0.5 * scale), int(1.5 * scale) + 1, count)
        return np.where(negative, -sizes, sizes)
    values = rng.random(count) if name in _SHARES else scale * rng.lognormal(0, 0.4, count)
    values = np.where(negative, -values, values)
    if "digits" in facts:
        values = np.round(values, facts["digits"])
    return values.astype(np.float32 if kind == "float" else np.float64)


def _texts(name: str, facts: dict[str, Any], count: int, rng: np.random.Generator, few: bool) -> list[Any]:
    if few or facts.get("length", 0) < 8:
        most = min(facts.get("distinct", len(_WORDS)), len(_WORDS))
        first = zlib.crc32(name.encode())
        return [_WORDS[(first + index) % len(_WORDS)] for index in rng.integers(0, most, count).tolist()]
    size = facts["length"]
    return [" ".join(f"{number:.6g}" for number in rng.random(size // 9 + 1))[:size] for _ in range(count)]
