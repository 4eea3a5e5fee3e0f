"""Hold a dataset against the topic that it came from: how many rows, and every id and every offset once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from benchmarks.fill import FilledTopic
from benchmarks.noise import ID_COLUMN, Ints, alert_ids


@dataclass(frozen=True)
class Rows:
    """What a check found."""

    #: How many rows, or records, there are.
    count: int
    #: Whether it is all alerts of the topic, each once.
    right: bool
    #: What was compared, or what was wrong.
    checked: str


def data_files(outdir: Path) -> list[Path]:
    """List the Parquet files of a dataset; what begins with a dot or an underscore is none."""
    return sorted(path for path in outdir.rglob("*.parquet") if not path.name.startswith((".", "_")))


def check_dataset(outdir: Path, topic: FilledTopic) -> Rows:
    """Compare a dataset's ids with those that were published, and its offsets where it has them."""
    files = data_files(outdir)
    if not files:
        return Rows(0, False, "there are no files")
    dataset = ds.dataset([str(path) for path in files], format="parquet")
    offsets = {"kafka_partition", "kafka_offset"} <= set(dataset.schema.names)
    columns = [ID_COLUMN[topic.survey], *(["kafka_partition", "kafka_offset"] if offsets else [])]
    try:
        table = dataset.to_table(columns=columns)
    except (pa.ArrowException, OSError):
        # Of a run that was killed: its last file has no footer.
        return Rows(0, False, "a file can't be read")
    ids = table.column(0).to_numpy()
    wanted = alert_ids(topic.survey, np.arange(topic.alerts, dtype=np.int64) + topic.first_number)
    if not _same(ids, wanted):
        return Rows(table.num_rows, False, f"{len(np.intersect1d(ids, wanted)):,} of {topic.alerts:,} ids are there")
    if not offsets:
        return Rows(table.num_rows, True, "every id once")
    places = table.column(1).to_numpy().astype(np.int64) << 40 | table.column(2).to_numpy()
    planned = np.concatenate([(number << 40) + np.arange(end) for number, end in enumerate(topic.ends)])
    right = _same(places, planned)
    return Rows(table.num_rows, right, "every id and every offset once" if right else "the offsets are not the topic's")


def _same(found: Ints, wanted: Ints) -> bool:
    return len(found) == len(wanted) and bool(np.array_equal(np.sort(found), np.sort(wanted)))
