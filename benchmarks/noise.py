"""Many different alerts from a few: every bit of an encoded alert that carries noise is drawn anew.

Encoding an alert with fastavro takes 0.3 ms to 8 ms, so a topic of millions would take longer to make than to measure.
A pool of some hundred alerts is encoded, and the place of each value in it is noted. A copy of the pool then gets other
low mantissa bits, other digits in long numbers and times of day, other noise in cutouts, and ids of its own, at the
same places: no alert equals another one, and Parquet finds no repeats but those that it finds in the portal's alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.alerts import lsst, ztf
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.alerts.noise import portal_facts
from tests.alerts.stamps import noise_of_lsst

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

#: An id as Avro writes it; all ids of a survey are of one size.
_ID_BYTES = 9
#: The column of a survey that is an id, at the top level and in the record of the detection, and what makes ids.
ID_COLUMN = {"ztf": "candid", "lsst": "diaSourceId"}
_IDS_OF = {"ztf": ztf.alert_ids, "lsst": lsst.alert_ids}
_DETECTION = {"ztf": "candidate", "lsst": "diaSource"}
#: How many alerts are encoded.
_POOL = {AlertKind.ZTF_LIGHT: 4096, AlertKind.ZTF_FULL: 256, AlertKind.LSST_FULL: 128}
#: How much of a compressed file is its header, which stays.
_GZIP_HEADER = 10
#: Numbers of which fewer differ than this share are some of a few: they stay as they are.
_FEW = 0.5


@dataclass(frozen=True)
class Pool:
    """Encoded alerts, one behind the other, and the bits of them that are noise."""

    survey: str
    base: Bytes
    #: For each byte the bits that may be anything.
    noise: Bytes
    #: Where each alert ends.
    ends: Ints
    #: Where the alerts' own ids begin: a row an alert.
    id_places: Ints

    def __len__(self) -> int:
        return len(self.ends)

    def vary(self, numbers: Ints, rng: np.random.Generator) -> bytes:
        """Return the alerts with other noise, and with the ids that belong to `numbers`, one for each alert."""
        words = rng.integers(0, 2**64, len(self.base) // 8 + 1, dtype=np.uint64)
        varied = self.base ^ (words.view(np.uint8)[: len(self.base)] & self.noise)
        # The id as a varint of 9 groups of 7 bits: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
        zigzag = (alert_ids(self.survey, numbers) * 2).astype(np.uint64)
        shifts = np.arange(_ID_BYTES, dtype=np.uint64) * np.uint64(7)
        groups = ((zigzag[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
        groups[:, :-1] |= 0x80
        varied[self.id_places[:, :, None] + np.arange(_ID_BYTES)] = groups[:, None, :]
        return varied.tobytes()


def alert_ids(survey: str, numbers: Ints) -> Ints:
    """Return the ids of the alerts of these numbers, which differ as the numbers do.

    Returns: the values of the column ``candid`` or ``diaSourceId``.
    """
    return _IDS_OF[survey](numbers)


def make_pool(kind: AlertKind, most: int, nights: int = 3) -> Pool:
    """Encode alerts of a kind and find out which of their bits are noise.

    `most`: the most that are of use; a kind has a number of its own that is enough for alerts to look different.
    `nights`: over how many days they are spread.
    """
    survey = kind.value.partition("-")[0]
    values = list(encoded_alerts(kind, min(most, _POOL[kind]), nights=nights))
    base = bytearray(b"".join(values))
    walk = _Walk(base, bytearray(len(base)), survey)
    ends, id_places = [], []
    for value in values:
        walk.id_places = []
        end = walk.at + len(value)
        walk.field(avro_schema(kind), "", own=True)
        if walk.at != end:
            raise AssertionError(f"the walk of an alert ended at {walk.at}, not at {end}")
        ends.append(end)
        id_places.append(walk.id_places)
    return Pool(
        survey,
        np.frombuffer(bytes(walk.base), np.uint8),
        np.frombuffer(bytes(walk.noise), np.uint8),
        np.array(ends, np.int64),
        np.array(id_places, np.int64),
    )


class _Walk:
    """Go through encoded alerts by their schema and mark the bits that are noise."""

    def __init__(self, base: bytearray, noise: bytearray, survey: str) -> None:
        self.base = base
        self.noise = noise
        self.at = 0
        self.survey = survey
        self.fields = portal_facts(survey)["fields"]
        self.id_places: list[int] = []

    def field(self, kind: Any, path: str, own: bool) -> None:
        """Pass one value; `own` says that it is the alert's, and not an earlier detection's."""
        name = path.rpartition(".")[2]
        if isinstance(kind, list):
            kind = kind[self.varint()]
        if isinstance(kind, dict):
            self.nested(kind, path, own)
        elif kind in {"double", "float"}:
            # Less than four bytes stay, which no compressor finds again; of times more, so that they keep their night.
            low = (3 if "jd" in name.lower() else 5) if kind == "double" else 2
            size = 8 if kind == "double" else 4
            if self.varies(path, bytes(self.base[self.at : self.at + size])):
                self.noise[self.at : self.at + low] = b"\xff" * low
            self.at += size
        elif kind in {"string", "bytes"}:
            size = self.varint()
            start = self.at
            self.at += size
            self.text(start, self.at, name) if kind == "string" else self.cutout(start, self.at)
        elif kind in {"long", "int"}:
            start = self.at
            self.varint()
            if kind == "long" and own and name == ID_COLUMN[self.survey]:
                if self.at - start != _ID_BYTES:
                    raise AssertionError(f"{name} takes {self.at - start} bytes")
                self.id_places.append(start)
            elif self.at - start > 3 and self.varies(path):
                # Neither the sign, which is the lowest bit, nor the size of the number changes.
                self.noise[start : self.at - 2] = b"\x7e" + b"\x7f" * (self.at - start - 3)
        elif kind == "boolean":
            self.at += 1
        elif kind != "null":
            raise AssertionError(f"{kind} is no type of a made-up alert")

    def nested(self, kind: dict[str, Any], path: str, own: bool) -> None:
        """Pass a record, an array or a map."""
        if kind["type"] == "record":
            for field in kind["fields"]:
                mine = own and (field["name"] in _DETECTION.values() or not _holds_others(field["type"]))
                self.field(field["type"], f"{path}.{field['name']}".lstrip("."), mine)
            return
        while count := self.varint():
            for _ in range(count):
                if kind["type"] == "map":
                    size = self.varint()
                    self.at += size
                self.field(kind.get("items") or kind["values"], f"{path}[]", own=False)

    def text(self, start: int, end: int, name: str) -> None:
        """Mark the last digits of times, file names and numbers written out; and the letters of an object's name."""
        if name == "objectId":
            self.base[end - 7 : end] = b"h" * 7
            self.noise[end - 7 : end] = b"\x07" * 7  # h to o
            return
        digits = [place for place in range(start, end) if 0x30 <= self.base[place] <= 0x39]
        for place in digits[-6:] if len(digits) >= 8 else []:
            self.base[place] = 0x30
            self.noise[place] = 0x07  # 0 to 7

    def cutout(self, start: int, end: int) -> None:
        """Mark the noise of a cutout: if it is compressed, nothing of the image is left, and all is noise."""
        if self.survey == "ztf":
            start += _GZIP_HEADER
            self.noise[start:end] = b"\xff" * (end - start)
        else:
            self.noise[start:end] = noise_of_lsst(bytes(self.base[start:end]))

    def varies(self, path: str, number: bytes | None = None) -> bool:
        """Tell whether a field's numbers are all different, which 0 and NaN are not."""
        facts = self.fields.get(path) or self.fields[f"{_DETECTION[self.survey]}.{path}"]
        if "distinct" in facts and facts["distinct"] < _FEW * facts["of"]:
            return False
        if number is None:
            return True
        value = float(np.frombuffer(number, "<f8" if len(number) == 8 else "<f4")[0])
        return np.isfinite(value) and value != 0

    def varint(self) -> int:
        """Read a number, as in https://avro.apache.org/docs/1.12.0/specification/#primitive-types-1."""
        value = shift = 0
        while (byte := self.base[self.at]) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            self.at += 1
        value |= byte << shift
        self.at += 1
        return (value >> 1) ^ -(value & 1)


def _holds_others(kind: Any) -> bool:
    """Tell whether a type is a record, an array or a map, or may be one."""
    return isinstance(kind, dict) or (isinstance(kind, list) and any(isinstance(branch, dict) for branch in kind))
