"""Made-up alerts of four kinds, as dictionaries or as the bytes that Fink would put into a topic."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import fastavro
import numpy as np

from fink_dask.demo.alerts import AlertKind
from fink_dask.errors import SettingsError
from tests.alerts import lsst, lsst_schemas, ztf, ztf_schemas
from tests.alerts.noise import Row
from tests.alerts.schemas import AvroSchema
from tests.alerts.sky import Sightings, sightings

__all__ = ["AlertKind", "avro_schema", "encode", "encoded_alerts", "encoder", "made_up_alerts"]


@dataclass(frozen=True)
class _Recipe:
    """How to make alerts of a kind: their schema, a function that makes a block, and the alerts per block."""

    schema: Callable[[], AvroSchema]
    make: Callable[[Sightings, np.random.Generator], list[Row]]
    block: int


_RECIPES = {
    AlertKind.ZTF_LIGHT: _Recipe(ztf_schemas.light_schema, ztf.light_alerts, 512),
    AlertKind.ZTF_FULL: _Recipe(ztf_schemas.full_schema, ztf.full_alerts, 32),
    AlertKind.LSST_LIGHT: _Recipe(lsst_schemas.light_schema, lsst.light_alerts, 512),
    AlertKind.LSST_FULL: _Recipe(lsst_schemas.full_schema, lsst.full_alerts, 32),
}


def avro_schema(kind: AlertKind | str) -> AvroSchema:
    """Return the Avro writer schema of a kind of alert.

    Returns: the schema, ready for ``json.dumps``; it is shared, so it is not to be changed.
    Raises SettingsError if there is no such kind.
    """
    return _recipe(kind).schema()


def made_up_alerts(
    kind: AlertKind | str,
    count: int,
    *,
    seed: int = 0,
    first_id: int = 0,
    nights: int = 3,
    first_night: str = "2026-02-24",
) -> Iterator[Row]:
    """Make up alerts: noisy, with a few nulls, and several of the same object.

    The alerts fall on the UTC days in turn, and one in fifty lies within a millisecond of midnight. The same arguments
    give the same alerts, and a shorter run is the beginning of a longer one.

    `first_id`: number of the first alert. Ids follow from the numbers alone, so runs whose numbers overlap share ids.
    `nights`: over how many consecutive UTC days the alerts are spread.
    `first_night`: the first of these days, as ``YYYY-MM-DD``.
    Raises SettingsError if an argument is out of range.
    """
    recipe = _recipe(kind)
    day = _day(first_night)
    if count < 0 or seed < 0 or first_id < 0 or nights < 1:
        raise SettingsError("count, seed and first_id must not be negative, and nights must be at least 1")
    return _blocks(recipe, range(first_id, first_id + count), seed=seed, nights=nights, first_night=day)


def encode(schema: AvroSchema, alert: Row) -> bytes:
    """Encode an alert as one schemaless Avro datum, which is the value of a Kafka message.

    `schema`: the writer schema. It is parsed each time; for many alerts, use `encoder`.
    """
    return encoder(schema)(alert)


def encoder(schema: AvroSchema) -> Callable[[Row], bytes]:
    """Return a function that encodes alerts of a schema, each as one schemaless Avro datum."""
    parsed: AvroSchema = fastavro.parse_schema(schema)
    collections = _nullable_collections(parsed)

    def encode_alert(alert: Row) -> bytes:
        # fastavro tries a value of a union against each branch, including all entries of a list, and then each entry
        # again. A pair of type and value names the branch, which makes long light curves twice as fast.
        # https://fastavro.readthedocs.io/en/latest/writer.html#using-the-tuple-notation-to-specify-which-branch-of-a-union-to-take
        marked = dict(alert)
        for name, (kind, entry) in collections.items():
            values = alert[name]
            if isinstance(values, list):
                marked[name] = kind, [(entry, value) for value in values]
            elif isinstance(values, dict):
                marked[name] = kind, {key: (entry, value) for key, value in values.items()}
        datum = io.BytesIO()
        fastavro.schemaless_writer(datum, parsed, marked)
        return datum.getvalue()

    return encode_alert


def encoded_alerts(
    kind: AlertKind | str,
    count: int,
    *,
    seed: int = 0,
    first_id: int = 0,
    nights: int = 3,
    first_night: str = "2026-02-24",
) -> Iterator[bytes]:
    """Make up alerts and encode them; see `made_up_alerts`.

    Raises SettingsError if an argument is out of its range.
    """
    alerts = made_up_alerts(kind, count, seed=seed, first_id=first_id, nights=nights, first_night=first_night)
    return map(encoder(avro_schema(kind)), alerts)


def _blocks(recipe: _Recipe, numbers: range, *, seed: int, nights: int, first_night: date) -> Iterator[Row]:
    """Yield alerts block by block; the last block is made in full, so that the noise does not depend on the count."""
    rng = np.random.default_rng([seed, numbers.start])
    for start in numbers[:: recipe.block]:
        seen = sightings(start, recipe.block, nights=nights, first_night=first_night, seed=seed, rng=rng)
        yield from recipe.make(seen, rng)[: numbers.stop - start]


def _nullable_collections(parsed: AvroSchema) -> dict[str, tuple[str, str]]:
    """Find the fields that are nullable arrays or maps of nullable records: their type and the record's name."""
    found = {}
    for field in parsed["fields"]:
        branch = field["type"][0] if isinstance(field["type"], list) else field["type"]
        if isinstance(branch, dict) and branch["type"] in {"array", "map"}:
            entry = (branch.get("items") or branch["values"])[0]
            if isinstance(entry, dict):
                found[field["name"]] = branch["type"], entry["name"]
    return found


def _recipe(kind: AlertKind | str) -> _Recipe:
    try:
        return _RECIPES[AlertKind(kind)]
    except ValueError as error:
        raise SettingsError(f"no alerts of the kind {kind!r}; there are {', '.join(AlertKind)}") from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"the first night {text!r} is not a date as YYYY-MM-DD") from error
