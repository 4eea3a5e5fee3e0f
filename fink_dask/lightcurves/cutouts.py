"""The cutouts that came with the alerts of an object."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.dataset.read import open_each
from fink_dask.dataset.surveys import Fields, expression
from fink_dask.errors import SettingsError
from fink_dask.lightcurves.find import find_alerts


@dataclass(frozen=True)
class Stamp:
    """A cutout, as the survey has sent it."""

    #: The identifier of its alert.
    alert: int
    #: What it shows: ``science``, ``template`` or ``difference``.
    shown: str
    #: A FITS file, or whatever came in its place.
    data: bytes | None


def cutouts_of(outdir: str | os.PathLike[str], object_id: str | int) -> Iterator[Stamp]:
    """Yield the cutouts of all alerts of an object, those of each alert once.

    Raises SettingsError if the alerts have no cutouts, or there is no such object.
    Raises LedgerError if the dataset is not what its ledger says, or a file can't be read.
    """
    opened = open_each(outdir)
    fit = [(dataset, fields) for dataset, fields in opened if fields.cutouts and fields.has("object", "source")]
    if not fit:
        raise SettingsError(f"{outdir} has no cutouts of objects; alerts of full packets have some")
    seen = set()
    for alerts, fields in find_alerts(outdir, fit, object_id, _columns):
        for row in alerts.to_pylist():
            if row["alert"] in seen:  # several topics may hold the same alert
                continue
            seen.add(row["alert"])
            yield from (Stamp(row["alert"], shown, row[shown]) for shown in fields.cutouts)


def _columns(_: pa.Schema, fields: Fields) -> dict[str, pc.Expression]:
    paths = {"alert": fields.paths["source"], **fields.cutouts}
    return {role: expression(path) for role, path in paths.items()}
