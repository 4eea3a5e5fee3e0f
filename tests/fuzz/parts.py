"""What is fed with damaged input, and what must not come of it: a wrong value, another error, a hang, a way out.

Each part makes up a round of inputs from a seed, and returns how many of them were taken and how many refused.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from astropy.io import fits

from fink_dask import open_dataset
from fink_dask.avro.schema import parse_schema
from fink_dask.dashboard.board import Board
from fink_dask.dashboard.page import headline, running_ranges
from fink_dask.dashboard.reports import TransferReport
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.credentials import read_credentials
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import seal
from fink_dask.ledger.summary import summarise
from fink_dask.progress.events import RangeCommitted, RangeProgress, TransferStarted
from fink_dask.report.examples import read_stamp
from fink_dask.verifying.files import verify_dataset
from fink_dask.where.condition import bind_condition
from fink_dask.where.language import parse_condition
from tests.alerts.made_up import AlertKind, avro_schema
from tests.avro.oracle import damage
from tests.avro.strategies import PRIMITIVES
from tests.harness.events import Told
from tests.harness.ledgers import make_ledger, make_plan, transfer
from tests.where.test_condition import CASES, ROWS

#: How many inputs were taken, and how many refused.
Count = tuple[int, int]

#: What a document may hold instead of what it should.
HOSTILE: list[Any] = [
    None, True, 0, -1, 5, 2**63, 10**400, 1.5, float("nan"), float("inf"), "", "x", "a\0b", "\ud800", "../../x",
    "/etc/passwd", "<script>alert(1)</script>", "\x1b[31m", "x" * 5000, [], ["a"], {}, {"a": 1}, [[]] * 50,
]  # fmt: skip
_MARKUP = re.compile("<script|\x1b")


def changed(document: Any, rng: random.Random) -> Any:
    """Copy a JSON document, with one of its values replaced, left out or moved."""
    copy = json.loads(json.dumps(document))
    places = [(holder, key) for holder in _holders(copy) for key in _keys(holder)]
    holder, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del holder[key]
        case 1:
            other, from_ = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[from_])) if from_ in _keys(other) else None
        case _:
            holder[key] = rng.choice(HOSTILE)
    return copy


def _holders(document: Any) -> Iterator[Any]:
    if isinstance(document, dict | list) and document:
        yield document
        for each in document.values() if isinstance(document, dict) else document:
            yield from _holders(each)


def _keys(holder: Any) -> list[Any]:
    return [*holder] if isinstance(holder, dict) else [*range(len(holder))]


def records(seed: int) -> Count:
    """Damaged records, held against a reader that goes byte by byte; every other time with bounds checked."""
    checked = os.environ | {"NUMBA_BOUNDSCHECK": str(seed % 2)}
    command = [sys.executable, "-m", "tests.avro.fuzz", "20", str(seed)]
    said = subprocess.run(command, env=checked, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr[-3000:]
    found = [(int(bad), int(whole)) for bad, whole in re.findall(r": (\d+) of (\d+) are bad", said.stdout)]
    refused = sum(bad for bad, _ in found)
    return sum(whole for _, whole in found) - refused, refused


def schemas(seed: int) -> Count:
    """Schemas of alerts with something else in one place, or in several."""
    rng = random.Random(seed)
    documents = [json.loads(json.dumps(avro_schema(kind))) for kind in AlertKind]
    documents.append({"type": "record", "name": "a", "fields": [{"name": n, "type": n} for n in PRIMITIVES]})
    return _tried([lambda: parse_schema(json.dumps(_several(rng.choice(documents), rng))) for _ in range(200)])


def stamps(seed: int) -> Count:
    """Cutouts: FITS files of which cards or bytes are others, some of them compressed."""
    rng = random.Random(seed)
    made = BytesIO()
    fits.PrimaryHDU(np.arange(63 * 63, dtype=np.float32).reshape(63, 63)).writeto(made)
    whole = made.getvalue()
    other = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((5, 5), np.int16))]).writeto(other)
    taken = 0
    for _ in range(200):
        content = rng.choice([whole, other.getvalue()])
        for _ in range(rng.randrange(1, 4)):
            content = damage(content, whole, rng) if rng.random() < 0.5 else _other_card(content, rng)
            content = content or whole
        image = read_stamp(gzip.compress(content, 1) if rng.random() < 0.3 else content)
        if image is not None:
            assert image.ndim == 2
            taken += 1
    return taken, 200 - taken


def _other_card(content: bytes, rng: random.Random) -> bytes:
    place = 80 * rng.randrange(36)
    value = rng.choice([b"0", b"1", b"2", b"3", b"-64", b"-5", b"999", b"9" * 20, b"'x'", b"T", b"1E9", b"63"])
    name = rng.choice([content[place : place + 8], b"NAXIS   ", b"NAXIS1  ", b"BITPIX  ", b"PCOUNT  ", b"END     "])
    return content[:place] + (name + b"= " + value.rjust(20)).ljust(80) + content[place + 80 :]


def conditions(seed: int) -> Count:
    """Conditions put together from pieces of others; one that is taken means the same when it is written out."""
    rng = random.Random(seed)
    cases = [re.findall(r"[\w.]+|\s+|[^\w\s]", text) for text, _ in CASES]
    pieces = [piece for case in cases for piece in case]
    pieces += ["(", ")", "not ", "9" * 400, "1e999", '"\\', "`", "\u212a", "\0", "is null", "in []"]

    def one() -> None:
        case = [*rng.choice(cases), " and ", *rng.choice(cases)]
        for _ in range(rng.choice([1, 1, 2, 20])):
            at = rng.randrange(len(case))
            case[at : at + rng.randrange(3)] = [rng.choice(pieces)]
        text = "".join(case)
        tree = parse_condition(text)
        assert parse_condition(str(tree)) == tree
        bind_condition(text, ROWS.schema).is_true(ROWS)

    return _tried([one] * 500)


def ledgers(seed: int) -> Count:
    """Documents of a ledger that are sealed rightly, and hold something else than they should."""
    rng = random.Random(seed)
    taken = refused = 0
    with TemporaryDirectory() as folder:
        plan = make_plan([OffsetRange(0, 0, 20), OffsetRange(1, 0, 20)])
        ledger = make_ledger(Path(folder) / "alerts", plan)
        for offset_range in plan.ranges:
            transfer(ledger, plan, offset_range)
        documents = [*ledger.plans_path.glob("*.json"), *ledger.markers_path.glob("*.json")]
        for _ in range(15):
            path = rng.choice(documents)
            before = path.read_bytes()
            document = json.loads(before)
            kind = document["fink_dask"]
            path.write_bytes(seal(kind, changed(document[kind], rng)))
            looks = [lambda: _look(ledger.outdir), lambda: verify_dataset(Ledger(ledger.outdir))]
            looks.append(lambda: json.dumps(asdict(summarise(Ledger(ledger.outdir)).summary), allow_nan=False))
            found = _tried(looks)
            taken, refused = taken + found[0], refused + found[1]
            path.write_bytes(before)
        outside = [path for path in Path(folder).iterdir() if path not in {ledger.outdir, ledger.path}]
        assert outside == [], outside
    return taken, refused


def _look(outdir: Path) -> None:
    open_dataset(outdir).to_table()


def credentials(seed: int) -> Count:
    """Files of credentials whose values, or whose bytes, are others."""
    rng = random.Random(seed)
    good = {"servers": "kafka.example.org:24499", "username": "ada", "password": "secret", "group_id": "ada", "t": [1]}

    def one() -> None:
        text = yaml.safe_dump(_several(good, rng), allow_unicode=True).encode(errors="replace")
        path.write_bytes(damage(text, b"!!python/object:os.system &a [*a, 0o17, 2026-01-01]\n", rng) or b"x")
        with _quiet():
            read_credentials(path)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "ztf_credentials.yml"
        return _tried([one] * 300)


def reports(seed: int) -> Count:
    """Messages to a dashboard with something else in one place; what is taken is shown as text and not as markup."""
    rng = random.Random(seed)
    progress = Told()
    progress.take(TransferStarted("night", 4, 0, 100, 0, None, {0: (50, 0), 1: (50, 0)}))
    progress.take(RangeProgress("night", OffsetRange(0, 0, 20), "a", 10, 10, 100, 0, "tcp://10.0.0.1:1"))
    progress.take(RangeCommitted("night", OffsetRange(1, 0, 20), 20, 200, {"decode": 1.0}, 0, 0))
    message = progress.report().to_message()
    taken = 0
    for _ in range(200):
        board = Board()
        try:
            report = TransferReport.from_message(changed(message, rng))
        except (TypeError, KeyError, ValueError):
            continue
        board.take(report)
        for known, topic in board.topics():
            shown = headline(known, topic) + running_ranges(known, topic)
            assert not _MARKUP.search(shown), shown
        taken += 1
    return taken, 200 - taken


#: All parts, by name.
PARTS: dict[str, Callable[[int], Count]] = {
    each.__name__: each for each in (records, schemas, stamps, conditions, ledgers, credentials, reports)
}


def _several(document: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice([1, 1, 2, 5])):
        document = changed(document, rng) if document else document
    return document


def _tried(inputs: list[Callable[[], object]]) -> Count:
    """Count what is taken, and what is refused in words of ours; anything else is a finding."""
    said = []
    for each in inputs:
        try:
            each()
        except FinkDaskError as error:
            said.append(str(error))
    for words in said:
        assert words.isprintable(), ascii(words)
        assert len(words) < 20_000, words[:500]
    return len(inputs) - len(said), len(said)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield
