"""Made-up alerts as Kafka stores them, made once for all test processes and runs: 12,000 take eight seconds."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from functools import cache
from pathlib import Path

import numpy as np

from tests import alerts
from tests.alerts.made_up import AlertKind, encoded_alerts
from tests.harness.kafka_install import cache_folder, locked

#: The generator makes blocks of so many: fewer would cost the same.
_BLOCK = {kind: 32 if kind.value.endswith("full") else 512 for kind in AlertKind}
_made: dict[tuple[AlertKind, int, int], list[bytes]] = {}


def alerts_once(kind: AlertKind, count: int, seed: int = 0, first_id: int = 0) -> list[bytes]:
    """Return what `encoded_alerts` makes of the same arguments; fewer alerts are the beginning of more."""
    wanted = kind, seed, first_id
    if len(_made.get(wanted, ())) < count:
        count_made = -(-count // _BLOCK[kind]) * _BLOCK[kind]
        if seed == first_id == 0:
            _made[wanted] = _kept(kind, count_made)
        else:
            _made[wanted] = list(encoded_alerts(kind, count_made, seed=seed, first_id=first_id))
    return _made[wanted][:count]


def _kept(kind: AlertKind, count: int) -> list[bytes]:
    """Read alerts that another process has made, or make and keep them."""
    room = cache_folder() / "alerts" / _generator()
    room.mkdir(parents=True, exist_ok=True)
    path = room / f"{kind}.pickle"
    with locked(room / f"{kind}.lock"):
        found: list[bytes] = pickle.loads(path.read_bytes()) if path.exists() else []
        if len(found) < count:
            found = list(encoded_alerts(kind, count))
            part = path.with_suffix(f".{uuid.uuid4().hex}")
            part.write_bytes(pickle.dumps(found))
            part.replace(path)
    return found


@cache
def _generator() -> str:
    """Name the generator by what it is made of: another one makes other alerts."""
    sources = sorted(Path(alerts.__file__).parent.glob("*.py"))
    made_of = [np.__version__.encode(), *(path.read_bytes() for path in sources)]
    return hashlib.sha256(b"".join(made_of)).hexdigest()[:16]
