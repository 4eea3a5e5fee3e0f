"""Which objects a dataset has alerts of: how many of each, and from when to when."""

from __future__ import annotations

import os
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.dataset.formats import reading
from fink_dask.dataset.read import open_each
from fink_dask.dataset.surveys import Fields, expression
from fink_dask.errors import SettingsError
from fink_dask.lightcurves.points import JD_OF_MJD

#: Batches are counted by themselves; of so many counts one is made.
_TOGETHER = 256
#: What is counted.
_NOTHING = pa.schema([("object", "string"), ("alerts", "int64"), ("first", "double"), ("last", "double")]).empty_table()
#: LSST gives what moves no object, or this one.
_NO_OBJECT = "0"


def count_alerts(
    outdir: str | os.PathLike[str], begin: Callable[[int], object], advance: Callable[[int], object]
) -> pa.Table:
    """Return each object with its number of alerts, and the MJD of the first and last; those with most come first.

    Objects are text, whatever the survey has: what moves goes by its designation. Several topics are counted together,
    so an alert that two of them hold counts twice.
    `begin`: is told how many alerts there are; `advance`: how many more have been looked at.
    Raises SettingsError if no column names objects.
    """
    opened = open_each(outdir)
    if not any(fields.has("object") for _, fields in opened):
        raise SettingsError(f"{outdir} has no {opened[0][1].survey.names['object']}: that is what names objects")
    counts = [_NOTHING]
    with reading(outdir):
        begin(sum(dataset.count_rows() for dataset, _ in opened))
        for dataset, fields in opened:
            for batch in dataset.scanner(columns=_columns(fields)).to_batches():
                counts.append(_add_up(pa.Table.from_batches([_named(batch)])))
                advance(batch.num_rows)
                if len(counts) == _TOGETHER:
                    counts = [_add_up(pa.concat_tables(counts))]
    return _add_up(pa.concat_tables(counts)).sort_by([("alerts", "descending"), ("object", "ascending")])


def _columns(fields: Fields) -> dict[str, pc.Expression]:
    """Say what to read of a dataset; what it lacks is null."""
    columns = {
        role: expression(fields.paths[role]).cast("string")
        if fields.has(role)
        else pc.scalar(pa.scalar(None, "string"))
        for role in ("object", "mover")
    }
    columns["time"] = expression(fields.paths["time"]) if fields.has("time") else pc.scalar(pa.scalar(None, "double"))
    if fields.survey.scale == "utc-jd":
        columns["time"] = pc.subtract(columns["time"], pc.scalar(JD_OF_MJD))
    return columns


def _named(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Give each alert the name of its object, and leave out those that have none."""
    is_object = pc.fill_null(pc.not_equal(batch["object"], _NO_OBJECT), False)
    name = pc.if_else(is_object, batch["object"], pc.utf8_trim_whitespace(batch["mover"]))
    one = pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows)
    named = pa.record_batch([name, one, batch["time"], batch["time"]], ["object", "alerts", "first", "last"])
    return named.filter(name.is_valid())


def _add_up(counts: pa.Table) -> pa.Table:
    added = counts.group_by("object").aggregate([("alerts", "sum"), ("first", "min"), ("last", "max")])
    return added.rename_columns({"alerts_sum": "alerts", "first_min": "first", "last_max": "last"})
