"""Read a marker in one look, where it is one as nearly all are: of a hundred thousand, each costs a third of the time.

What `Marker.from_json` asks of each value of a document, a pattern asks of its text. A marker that is not of this form
is read in full, which says what it is, and what is wrong with it; so this never has to.
"""

from __future__ import annotations

import hashlib
import re

from fink_dask.kafka.offsets import Interval, OffsetRange
from fink_dask.ledger.records import DataFile, Marker

#: Below 2^63, as every number in a ledger is.
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
#: A text that stands for itself, without what separates values.
_TEXT = r"[ !#-Z^-z|~]+"
_INTERVAL = rf"\[{_NUMBER},{_NUMBER}\]"
_INTERVALS = rf"\[((?:{_INTERVAL}(?:,{_INTERVAL})*)?)\]"

#: A document in the form in which it is written, without quarantine and superseded files; its content begins at ``()``.
_DOCUMENT = re.compile(
    r'\{"fink_dask":"marker","format":[12],"sha256":"([0-9a-f]{64})","marker":()'
    rf'\{{"attempt":"({_TEXT})",'
    rf'"duplicates":{_INTERVALS},'
    r'"files":\[(?:\{([^\[\]]+)\})?\],'
    rf'"filtered":({_NUMBER}),'
    rf'(?:"handed_over":{_INTERVALS},)?'
    rf'"holes":{_INTERVALS},'
    rf'"lost":{_INTERVALS},'
    rf'"lost_at":(?:null|"({_TEXT})"),'
    rf'"newest_ms":(?:null|({_NUMBER})),'
    rf'"plan_id":"({_TEXT})",'
    r'"quarantine":null,"quarantined":0,'
    rf'"range":\[({_NUMBER},{_NUMBER},{_NUMBER})\],'
    rf'"raw_bytes":({_NUMBER}),'
    rf'"revision":({_NUMBER}),'
    rf'"rows":({_NUMBER}),'
    r'"superseded":\[\]\}\}'
)
_FILE = re.compile(
    rf'"file_rows":(?:null|({_NUMBER})),'
    rf'"path":"({_TEXT})",'
    rf'"rows":({_NUMBER}),'
    rf'"sha256":"({_TEXT})",'
    rf'"size":({_NUMBER}),'
    rf'"staged":"({_TEXT})"'
)


def usual_marker(raw: bytes, offset_range: OffsetRange, plan_id: str, revision: int) -> Marker | None:
    """Read the marker of this range, plan and revision; None where it has to be read in full.

    Raises LedgerError if it does not add up.
    """
    found = _DOCUMENT.fullmatch(raw.decode("latin-1"))
    if found is None or hashlib.sha256(raw[found.start(2) : -1]).hexdigest() != found[1]:
        return None
    _, _, attempt, duplicates, listed, filtered, handed_over, holes, lost, lost_at, newest_ms, *others = found.groups()
    plan, place, raw_bytes, number, rows = others
    meant = f"{offset_range.partition},{offset_range.start},{offset_range.end}"
    if place != meant or plan != plan_id or int(number) != revision:
        return None
    files = []
    for each in listed.split("},{") if listed else ():
        if (file := _FILE.fullmatch(each)) is None:
            return None
        all_rows, path, share, sha256, size, staged = file.groups()
        files.append(DataFile(path, staged, int(share), int(size), sha256, None if all_rows is None else int(all_rows)))
    return Marker(
        plan_id,
        offset_range,
        attempt,
        int(rows),
        int(raw_bytes),
        tuple(files),
        filtered=int(filtered),
        lost=_intervals(lost) if lost else (),
        holes=_intervals(holes) if holes else (),
        lost_at=lost_at,
        revision=revision,
        newest_ms=None if newest_ms is None else int(newest_ms),
        duplicates=_intervals(duplicates) if duplicates else (),
        handed_over=_intervals(handed_over) if handed_over else (),
    )


def _intervals(listed: str) -> tuple[Interval, ...]:
    pairs = (each.split(",") for each in listed[1:-1].split("],["))
    return tuple((int(start), int(end)) for start, end in pairs)
