"""Write the alerts that come with the package: ``python -m tests.alerts.pack``, after a change to what makes them."""

from __future__ import annotations

from pathlib import Path

import fastavro

import fink_dask.demo
from fink_dask.demo.alerts import AlertKind
from tests.alerts.made_up import avro_schema, made_up_alerts

#: How many of each kind: light ones so many that their objects have several alerts each.
COUNTS = {AlertKind.ZTF_LIGHT: 244, AlertKind.ZTF_FULL: 2, AlertKind.LSST_LIGHT: 122, AlertKind.LSST_FULL: 2}
FOLDER = Path(fink_dask.demo.__file__).parent
_NIGHTS = 2


def pack(kind: AlertKind, path: Path) -> None:
    """Write the file of a kind, the same bytes each time."""
    alerts = made_up_alerts(kind, COUNTS[kind], nights=_NIGHTS)
    with path.open("wb") as file:
        fastavro.writer(file, avro_schema(kind), alerts, codec="deflate", sync_marker=kind.encode().ljust(16))


if __name__ == "__main__":
    for each in AlertKind:
        pack(each, FOLDER / f"{each}.avro")
