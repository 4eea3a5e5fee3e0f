"""Chosen objects for a report: all that their alerts tell of their brightness, and the newest cutouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.dataset.cutouts import Image, read_stamp
from fink_dask.dataset.read import open_each
from fink_dask.dataset.surveys import Fields, expression
from fink_dask.errors import SettingsError
from fink_dask.lightcurves.find import cutouts_of, find_alerts, light_curve
from fink_dask.report.charts import BANDS
from fink_dask.report.examples import OTHER_BAND, Example, points_by_band


def show_objects(outdir: Path, names: Sequence[str], with_stamps: bool) -> list[Example]:
    """Find what there is to show of each of these objects.

    `outdir`: the dataset, or a directory with those of several topics.
    Raises SettingsError if there is no such object, or the dataset lacks the columns of a light curve.
    Raises LedgerError if the dataset is not what its ledger says.
    """
    return [example for name in dict.fromkeys(names) for example in _show(outdir, name, with_stamps)]


def _show(outdir: Path, name: str, with_stamps: bool) -> Iterator[Example]:
    """Yield one for each kind of brightness: LSST's light packets have another than its full ones."""
    curve = light_curve(outdir, name)
    alerts = curve.filter(pc.equal(curve["kind"], "alert"))
    newest = alerts["alert"][-1].as_py() if alerts.num_rows else None
    stamps: dict[str, Image | None] = {}
    if with_stamps:
        try:
            stamps = {each.shown: read_stamp(each.data) for each in cutouts_of(outdir, name) if each.alert == newest}
        except SettingsError:  # light packets have none
            stamps = {}
    source, label = "" if newest is None else str(newest), _label(outdir, name)
    if not curve.num_rows:
        yield Example(name, source, label, stamps, {})
    now = (alerts if alerts.num_rows else curve)["mjd"][-1].as_py() if curve.num_rows else 0.0
    for quantity in curve["quantity"].unique().to_pylist():
        one = curve.filter(pc.equal(curve["quantity"], quantity))
        columns = {
            role: one[column].to_pylist()
            for role, column in (("time", "mjd"), ("value", "value"), ("error", "error"), ("limit", "limit"))
        }
        bands = [band if band in BANDS else OTHER_BAND for band in one["band"].to_pylist()]
        is_flux = one["unit"][0].as_py() == "nJy"
        shown, beyond = points_by_band(columns, now, np.array(bands), is_flux)
        yield Example(name, source, label, stamps, shown, beyond, is_flux, quantity)
        stamps = {}  # they are beside the first one


def _label(outdir: Path, name: str) -> str:
    """Return the class of the newest alert that has one, from the first column that says one."""

    def columns(_: pa.Schema, fields: Fields) -> dict[str, pc.Expression]:
        return {path: expression(path) for path in (fields.paths["time"], *fields.classes)}

    opened = open_each(outdir)
    fit = [(dataset, fields) for dataset, fields in opened if fields.has("object", "time") and fields.classes]
    if not fit:
        return ""
    labels = [
        (row[fields.paths["time"]], fields.of_class(path).class_name(row[path]))
        for alerts, fields in find_alerts(outdir, fit, name, columns)
        for path in fields.classes
        for row in alerts.to_pylist()
        if row[path] is not None and row[fields.paths["time"]] is not None
    ]
    return max(labels, key=lambda each: each[0])[1] if labels else ""
