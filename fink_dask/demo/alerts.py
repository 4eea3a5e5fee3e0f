"""Made-up alerts of each kind, which come with the package in small Avro files and are played with ids of their own.

``tests/alerts`` makes the files. Alert 0 is the first of a file; once all of a file have been played, it begins again,
and tells of other objects at other places of the sky.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from fink_dask.errors import SettingsError

Alert = dict[str, Any]

#: The golden ratio times 2**64, made odd: multiplying by it permutes the numbers below any power of two.
_ODD = 0x9E3779B97F4A7C15
#: Ids begin as those of the surveys do, and differ in the bits below. They are odd: none survives as a 64-bit float.
_FIRST_ID = {"candid": 3_341_000_000_000_000_001, "diaSourceId": 170_094_456_000_000_001}
_FIRST_OBJECT = 170_028_485_000_000_001
_ID_BITS = 37
#: From an object to the one that the same alerts tell of in the next turn.
_GOLDEN_ANGLE, _GOLDEN_SHARE = 137.50776405, 0.61803399
#: The sine of the largest declination.
_HIGHEST = 0.8
#: Turns of a file from the objects of one seed to those of the next.
_TURNS_OF_A_SEED = 1_000_003


class AlertKind(StrEnum):
    """A survey and how much of a packet is sent."""

    ZTF_LIGHT = "ztf-light"
    ZTF_FULL = "ztf-full"
    LSST_LIGHT = "lsst-light"
    LSST_FULL = "lsst-full"


@dataclass(frozen=True)
class _Recording:
    """What a file holds; ``objects`` numbers the objects in the order of their first alerts."""

    schema: Alert
    alerts: tuple[Alert, ...]
    objects: dict[str | int, int]


def recorded_schema(kind: AlertKind | str) -> str:
    """Return the Avro writer schema of a kind of alert, as JSON."""
    return json.dumps(_recording(AlertKind(kind)).schema)


def play_alerts(kind: AlertKind | str, count: int, *, seed: int = 0, first_number: int = 0) -> Iterator[bytes]:
    """Yield made-up alerts as schemaless Avro; the same arguments give the same bytes.

    `first_number`: number of the first alert. Ids follow from the numbers alone, so runs whose numbers overlap share
    ids.
    Raises SettingsError if an argument is negative.
    """
    if count < 0 or seed < 0 or first_number < 0:
        raise SettingsError("count, seed and first_number must not be negative")
    return _play(AlertKind(kind), range(first_number, first_number + count), seed)


def _play(kind: AlertKind, numbers: range, seed: int) -> Iterator[bytes]:
    import fastavro

    recording = _recording(kind)
    parsed = fastavro.parse_schema(recording.schema)
    for number in numbers:
        turn, place = divmod(number, len(recording.alerts))
        datum = io.BytesIO()
        alert = _renewed(recording, recording.alerts[place], number, turn + seed * _TURNS_OF_A_SEED)
        fastavro.schemaless_writer(datum, parsed, alert)
        yield datum.getvalue()


@cache
def _recording(kind: AlertKind) -> _Recording:
    import fastavro

    with Path(__file__).with_name(f"{kind}.avro").open("rb") as file:
        reader = fastavro.reader(file)
        alerts: tuple[Alert, ...] = tuple(reader)
        schema = json.loads(reader.metadata["avro.schema"])
    objects = {name: number for number, name in enumerate(dict.fromkeys(map(_object_of, alerts)))}
    return _Recording(schema, alerts, objects)


def _detection(alert: Alert) -> Alert:
    """Return the part of an alert that says when and where: itself, if its columns are flat."""
    found: Alert = alert.get("candidate") or alert.get("diaSource") or alert
    return found


def _object_of(alert: Alert) -> str | int:
    name: str | int = alert["objectId"] if "objectId" in alert else _detection(alert)["diaObjectId"]
    return name


def _renewed(recording: _Recording, alert: Alert, number: int, turn: int) -> Alert:
    """Copy an alert with an id that belongs to its number, about an object that belongs to this turn."""
    name = _object_of(alert)
    target = recording.objects[name] + turn * len(recording.objects)
    detection = _detection(alert)
    sine = math.sin(math.radians(detection["dec"])) + _HIGHEST + 2 * _HIGHEST * _GOLDEN_SHARE * turn
    up = math.degrees(math.asin(sine % (2 * _HIGHEST) - _HIGHEST)) - detection["dec"] if turn else 0.0
    new = {
        **{field: _numbered(first, number) for field, first in _FIRST_ID.items()},
        "objectId": object_name(target),
        # What moves belongs to no object, and says 0.
        "diaObjectId": _numbered(_FIRST_OBJECT, target) if name else name,
    }
    return _copied(alert, new, (_GOLDEN_ANGLE * turn % 360, up), own=True)


def _copied(record: Alert, new: Alert, shift: tuple[float, float], own: bool) -> Alert:
    """Copy a record and those inside it; `own` says that it is of this alert, and not of an earlier detection."""
    copy = dict(record)
    for field, value in record.items():
        if isinstance(value, dict):
            copy[field] = _copied(value, new, shift, own)
        elif isinstance(value, list):
            copy[field] = [_copied(each, new, shift, own=False) for each in value]
        elif value is None:
            continue
        elif field == "ra":
            copy[field] = round((value + shift[0]) % 360, 7)
        elif field == "dec":
            copy[field] = round(value + shift[1], 7)
        elif field in new and (own or field not in _FIRST_ID):
            copy[field] = new[field]
    return copy


def _numbered(first: int, number: int) -> int:
    scattered: int = number * _ODD % 2**_ID_BITS
    return first + 2 * scattered


def object_name(number: int) -> str:
    """Return a name such as ZTF26abcdefg, one for each number below 26**7."""
    letters = ""
    number = number * 1_000_003 % 26**7  # coprime to 26, so that no two numbers collide
    for _ in range(7):
        number, letter = divmod(number, 26)
        letters = chr(ord("a") + letter) + letters
    return f"ZTF26{letters}"
