"""Predictions of FinkAI: what their JSON says becomes a record, and alerts get a column of them.

A model reads alerts and writes, for each, ``{"source": {"candid": …}, "bridge": MODEL, "result": …}``. The result is a
number, the list that begins with it, or an object whose ``predictions`` are one of these. Whatever Fink's own client
takes is taken, as it takes it.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from fink_dask.avro.reasons import RecordError
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.errors import SchemaError

#: The column that alerts are given, and the one that alerts and predictions have in common.
COLUMN, COMMON = "model_predictions", "candid"
_TYPES = {"model": "string", "prediction": "double"}
#: What becomes of a prediction.
SCHEMA = parse_schema(
    json.dumps(
        {
            "type": "record",
            "name": "prediction",
            "fields": [{"name": name, "type": kind} for name, kind in ({COMMON: "long"} | _TYPES).items()],
        }
    )
)
_LONG = range(-(2**63), 2**63)


def record_of(value: bytes) -> bytes:
    """Make an Avro record of `SCHEMA` of a prediction.

    Raises ValueError if it is none.
    """
    try:
        said = json.loads(value)
    except RecursionError as error:
        raise RecordError("it is nested too deeply") from error
    if not isinstance(said, dict) or not isinstance(source := said.get("source"), dict):
        raise RecordError("it does not say of which alert")
    try:
        candid, prediction = int(source[COMMON]), _number(said.get("result"))
    except KeyError as error:
        raise RecordError("it does not say of which alert") from error
    except (TypeError, OverflowError) as error:
        raise RecordError(str(error)) from error
    if candid not in _LONG:
        raise RecordError(f"{COMMON} is beyond 64 bits")
    model = str(said.get("bridge") or "").encode()
    return _long(candid) + _long(len(model)) + model + struct.pack("<d", prediction)


def _number(result: Any) -> float:
    """Take the prediction out of what the model has answered; not a number where it has none."""
    found = result.get("predictions") if isinstance(result, dict) else result
    if isinstance(found, list):
        found = found[0] if found else None
    return math.nan if found is None else float(found)


def _long(value: int) -> bytes:
    """Write an integer as Avro does: the sign last, seven bits a byte."""
    left, written = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    written.append(left)
    return bytes(written)


def _nullable(types: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "type": ["null", kind], "default": None} for name, kind in types.items()]


def with_predictions(alerts: AvroSchema) -> AvroSchema:
    """Return the schema of alerts that are given their predictions.

    Raises SchemaError if the alerts have no 64-bit identifier, or have predictions already.
    """
    fields = dict(zip(alerts.parsed.names, alerts.arrow, strict=True))
    if COMMON not in fields or str(fields[COMMON].type) != "int64":
        raise SchemaError(f"the alerts have no {COMMON} of 64 bits to join predictions by")
    if COLUMN in fields:
        raise SchemaError(f"the alerts have a column {COLUMN} already")
    document = json.loads(json.dumps(alerts.document))
    record = document if isinstance(document, dict) else next(each for each in document if each != "null")
    # Everything may be null, as in the files of Fink's own client, though nothing ever is.
    items = {"name": "fink_dask.model_prediction", "type": "record", "fields": _nullable(_TYPES)}
    record["fields"] += _nullable({COLUMN: {"type": "array", "items": ["null", items]}})
    return parse_schema(json.dumps(document, separators=(",", ":")))
