"""What is known of the packets that Fink's portal sends, and the same of any others, so that the two can be compared.

``python -m tests.alerts.portal ZTF.avro LSST.avro`` writes `FACTS` from files that the portal has sent: the names and
types of fields, how often they are null, how long lists are, how well sections compress. No value is in it.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

FACTS = Path(__file__).with_name("portal.json")
_DTYPES = {"float": np.float32, "double": np.float64}
_NUMBERS = {"int", "long", *_DTYPES}
#: The decimals that are tried before numbers count as written with all their digits, and how many have to fit.
_MOST_DECIMALS = {"float": 6, "double": 10}
_MOST = 0.9

Facts = dict[str, Any]


def describe(schema: Any, alerts: Sequence[dict[str, Any]]) -> Facts:
    """Describe alerts of one schema.

    Returns: ``alerts``, how many; ``bytes``, what an alert takes at least, on average and at most; ``sections``, mean
    bytes and the share that zstd leaves of all of them, by the name of a root field of more than one value;
    ``lengths``, the quartiles of lists, by path; and ``fields``, what `_column` says of each, by path.
    """
    sizes = [len(_encoded(schema, alert)) for alert in alerts]
    columns: dict[str, list[Any]] = defaultdict(list)
    lengths: dict[str, list[int]] = defaultdict(list)
    kinds = dict(_types(schema, ""))
    for alert in alerts:
        _gather(schema, alert, "", columns, lengths)
    sections = {}
    for field in schema["fields"]:
        parts = list(_parts(field, alerts))
        if parts:
            sections[field["name"]] = [round(sum(map(len, parts)) / len(alerts)), _compressed(b"".join(parts))]
    return {
        "alerts": len(alerts),
        "bytes": [min(sizes), round(sum(sizes) / len(sizes)), max(sizes)],
        "sections": sections,
        "lengths": {
            path: [round(float(each)) for each in np.quantile(found, [0, 0.25, 0.5, 0.75, 1])]
            for path, found in lengths.items()
        },
        "fields": {path: _column(kind, columns[path]) for path, kind in kinds.items()},
    }


def _parts(field: dict[str, Any], alerts: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the bytes of a root field that is a record, a list or a map, or that is bytes, where it is not null."""
    kind = _branch(field["type"])
    if not isinstance(kind, dict) and kind != "bytes":
        return
    for alert in alerts:
        value = alert[field["name"]]
        if value is None:
            continue
        yield value if isinstance(value, bytes) else _encoded(kind, value)


def _encoded(schema: Any, value: Any) -> bytes:
    datum = io.BytesIO()
    fastavro.schemaless_writer(datum, fastavro.parse_schema(schema), value)
    return datum.getvalue()


def _compressed(data: bytes) -> float:
    """Return what zstd leaves of bytes, at the level at which Parquet files are written."""
    return round(len(pa.compress(data, codec="zstd", asbytes=True)) / max(len(data), 1), 2)


def _branch(kind: Any) -> Any:
    """Return a type without null."""
    return next(each for each in kind if each != "null") if isinstance(kind, list) else kind


def _types(kind: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each field and its type: of a primitive its name, else ``record``, ``array`` or ``map``."""
    kind = _branch(kind)
    if not isinstance(kind, dict):
        yield path, kind
        return
    if path:
        yield path, kind["type"]
    if kind["type"] == "record":
        for field in kind["fields"]:
            yield from _types(field["type"], f"{path}.{field['name']}".lstrip("."))
    else:
        yield from _types(kind.get("items") or kind["values"], f"{path}[]")


def _gather(kind: Any, value: Any, path: str, columns: dict[str, list[Any]], lengths: dict[str, list[int]]) -> None:
    """Append each value of an alert to the column of its path; the entries of a map have one path."""
    kind = _branch(kind)
    if path:
        columns[path].append(value)
    if not isinstance(kind, dict) or value is None:
        return
    if kind["type"] == "record":
        for field in kind["fields"]:
            _gather(field["type"], value[field["name"]], f"{path}.{field['name']}".lstrip("."), columns, lengths)
        return
    lengths[path].append(len(value))
    for each in value.values() if isinstance(value, dict) else value:
        _gather(kind.get("items") or kind["values"], each, f"{path}[]", columns, lengths)


def _column(kind: str, values: list[Any]) -> Facts:
    """Describe the values of one field.

    `values`: A value for each record that has the field.
    Returns: ``type``; the shares that are ``null``, ``nan``, ``negative`` and ``true``, where they are not 0;
    ``distinct``, how many different ones there are ``of`` so many, where some repeat; ``digits``, the decimals of
    numbers that are written with fewer than all; ``log``, the decimal logarithm of their typical distance from 0; and
    ``length``, that of a typical text.
    """
    facts: Facts = {"type": kind}
    known = [value for value in values if value is not None]
    shares = {"null": len(values) - len(known)}
    if kind == "boolean":
        shares["true"] = sum(known)
    if kind in _DTYPES:
        finite = [value for value in known if math.isfinite(value)]
        shares["nan"], known = len(known) - len(finite), finite
    if kind in _NUMBERS:
        shares["negative"] = sum(value < 0 for value in known)
    facts |= {name: round(share / len(values), 3) for name, share in shares.items() if share}
    if not known or kind not in _NUMBERS | {"string"}:
        return facts
    if len(set(known)) < len(known):
        facts |= {"distinct": len(set(known)), "of": len(known)}
    if kind == "string":
        return facts | {"length": round(median(map(len, known)))}
    if typical := median(map(abs, known)):
        facts["log"] = round(math.log10(typical), 1)
    if kind in _DTYPES:
        numbers = np.array(known, _DTYPES[kind])
        smallest = 2 * float(np.spacing(np.abs(numbers).max()))
        for decimals in range(_MOST_DECIMALS[kind] + 1):
            if 10.0**-decimals < smallest:
                break
            if np.mean(np.round(numbers.astype(np.float64), decimals).astype(numbers.dtype) == numbers) >= _MOST:
                return facts | {"digits": decimals}
    return facts


def main(paths: Sequence[str]) -> None:
    """Write the facts of files, each of which is named after its survey and says what is in a full packet."""
    found = {}
    for path in paths:
        with Path(path).open("rb") as file:
            reader = fastavro.reader(file)
            found[f"{Path(path).name.partition('_')[0]}-full"] = describe(reader.writer_schema, list(reader))
    lines = []
    for kind, facts in found.items():
        fields = facts.pop("fields")
        rows = ",\n".join(f"      {json.dumps(name)}: {json.dumps(each)}" for name, each in fields.items())
        rest = ",\n".join(f"    {json.dumps(name)}: {json.dumps(each)}" for name, each in facts.items())
        lines.append(f'  {json.dumps(kind)}: {{\n{rest},\n    "fields": {{\n{rows}\n    }}\n  }}')
    FACTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
