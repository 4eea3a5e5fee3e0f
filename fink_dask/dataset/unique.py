"""Alerts that are there more than once: in two topics, or sent again; and the condition that is true of one of each.

The survey's identifier of what an alert was sent for tells alerts apart: ``candid`` of ZTF, ``diaSourceId`` of LSST.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.dataset.surveys import expression, find_fields
from fink_dask.errors import SettingsError

_PLACE = ("number", "kafka_partition", "kafka_offset")


def is_first(opened: Sequence[tuple[str, ds.Dataset]], topic: str | None) -> pc.Expression | None:
    """Make the condition that keeps one of the alerts with the same identifier: the first by topic, then in Kafka.

    `topic`: the column that tells topics apart; None if there is only one.
    Returns None if no alert is there twice. Alerts without an identifier are all kept.
    Raises SettingsError if the alerts of a topic have no identifier.
    """
    tables = []
    for number, (name, dataset) in enumerate(opened):
        fields = find_fields(dataset.schema)
        if not fields.has("source"):
            raise SettingsError(f"{name} has no {fields.survey.names['source']}, by which alerts are told apart")
        columns = {"source": expression(fields.paths["source"])} | {each: pc.field(each) for each in _PLACE[1:]}
        found = dataset.to_table(columns=columns)
        tables.append(found.append_column("number", pa.repeat(pa.scalar(number, pa.int32()), found.num_rows)))
    kinds = {table.schema.field("source").type for table in tables}
    if len(kinds) > 1:
        raise SettingsError(f"the identifiers of alerts are of several types: {', '.join(sorted(map(str, kinds)))}")
    alerts = pa.concat_tables(tables)
    counts = pc.value_counts(alerts["source"])
    again = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).drop_null()
    twice = alerts.filter(pc.is_in(alerts["source"], again)).sort_by(
        [(name, "ascending") for name in ("source", *_PLACE)]
    )
    sources = twice["source"].combine_chunks()
    is_later = np.zeros(len(sources), dtype=bool)
    is_later[1:] = pc.equal(sources[1:], sources[:-1]).to_numpy(zero_copy_only=False)
    gone: pc.Expression | None = None
    places = twice.filter(pa.array(is_later)).group_by(list(_PLACE[:2])).aggregate([("kafka_offset", "list")])
    for place in places.to_pylist():
        one = (pc.field("kafka_partition") == place["kafka_partition"]) & pc.field("kafka_offset").isin(
            pa.array(place["kafka_offset_list"], pa.int64())
        )
        if topic is not None:
            one &= pc.field(topic) == opened[place["number"]][0]
        gone = one if gone is None else gone | one
    return None if gone is None else ~gone
