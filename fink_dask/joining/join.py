"""Join alerts with the predictions that models of FinkAI have made of them: a dataset made of two others.

Alerts and predictions were transferred as any topic is, each into a dataset of its own. The joined dataset has the
plans of the alerts, and is made range by range, by attempts like any other: staged, marked, published. An attempt is
called after what it makes, so a range is left alone until something of it has changed, and then becomes the next
revision.
Alerts without a prediction are no rows: its ledger counts them as filtered, and theirs has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fink_dask.avro.evolution import Versions
from fink_dask.avro.predictions import COLUMN, COMMON, with_predictions
from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.formats import Origin, why_unreadable
from fink_dask.dataset.presence import check_file
from fink_dask.dataset.read import open_dataset
from fink_dask.dataset.schema_versions import file_schema, known_versions, partitioning_of
from fink_dask.dataset.writer import StagedWriter
from fink_dask.errors import InterruptedTransferError, LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, missing_files, publish, published, roll_forward
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.outdir import check_dataset, create_ledger, remove_if_unused
from fink_dask.ledger.records import JOINED, Identity, Marker, Plan
from fink_dask.settings import COMPRESSION

#: Alerts whose predictions are looked for at once. More of them are held in memory only where a single range has more.
_ALERTS = 2**19


def join_datasets(
    alerts: Ledger,
    predictions: Ledger,
    target: Ledger,
    compression: str = COMPRESSION,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Make a dataset of the alerts that have predictions, or bring it up to date.

    `alerts, predictions`: the two datasets, which may be growing.
    `should_stop`: asked for each row group; True ends it.
    Raises FinkDaskError if the alerts can't be joined, the joined dataset is of something else, or the file system
    refuses. What was done is kept, and the same call goes on from there.
    """
    for each in (alerts, predictions):
        check_dataset(each)
    try:
        with ExitStack() as stack:
            stack.callback(remove_if_unused, target, create_ledger(target))
            lease = stack.enter_context(hold_lease(target))
            plans = alerts.plans()
            job = _Job(alerts, target, plans, compression, should_stop)
            job.plan()
            opened = open_dataset(predictions.outdir)
            for group in _groups(published(alerts, list(alerts.markers(plans)))):
                candids = {marker.range: job.candids(marker) for marker in group}
                found = Predictions(opened, np.concatenate([*candids.values(), np.empty(0, np.int64)]), job.kind)
                for marker in group:
                    lease.check()
                    job.join(marker, found, found.digest([candids[marker.range]], marker.attempt, COLUMN))
    except OSError as error:
        raise storage_error(error, target.path) from error
    except pa.ArrowException as error:
        raise LedgerError(f"the files of {alerts.outdir} can't be joined: {why_unreadable(error)}") from error


class _Job:
    """One run of a join."""

    def __init__(
        self,
        alerts: Ledger,
        target: Ledger,
        plans: Sequence[Plan],
        compression: str,
        should_stop: Callable[[], bool],
    ) -> None:
        self._alerts = alerts
        self._target = target
        self._compression = compression
        self._should_stop = should_stop
        self._schema = _schema(alerts, plans)
        self._plans = [replace(plan, identity=joined_identity(plan.identity, self._schema)) for plan in plans]
        identity, versions = self._plans[0].identity, Versions((self._schema,))
        self._columns = file_schema(versions, identity, partitioning_of(identity, versions))
        self.kind = self._columns.field(COLUMN).type
        self._plan_of = {offset_range: plan for plan in self._plans for offset_range in plan.ranges}
        self._done: dict[OffsetRange, Marker] = {}

    def plan(self) -> None:
        """Take over the plans of the alerts, and settle what an earlier run left; the caller holds the lease.

        Raises LedgerError if the dataset was made of other alerts.
        """
        before = [plan.plan_id for plan in self._target.plans()]
        if before != [plan.plan_id for plan in self._plans[: len(before)]]:
            raise LedgerError(f"{self._target.outdir} was not made of the alerts in {self._alerts.outdir}")
        ids = set(before)
        for plan in self._plans[len(before) :]:
            self._target.freeze(plan, self._schema, ids)
            ids.add(plan.plan_id)
        roll_forward(self._target, self._plans)
        self._done = {marker.range: marker for marker in self._target.markers(self._plans)}

    def candids(self, marker: Marker) -> npt.NDArray[np.int64]:
        """Read the identifiers of a range's alerts."""
        paths = [self._alerts.outdir / file.path for file in marker.files]
        read = [pq.ParquetFile(path).read(columns=[COMMON])[COMMON].drop_null().to_numpy() for path in paths]
        return np.concatenate([np.empty(0, np.int64), *read])

    def join(self, marker: Marker, found: Predictions, name: str) -> None:
        """Make the files of a range, unless they are there."""
        before = self._done.get(marker.range)
        if before is not None and before.attempt == name and not missing_files(self._target, [before]):
            return
        plan, revision = self._plan_of[marker.range], 0 if before is None else before.revision + 1
        attempt = Attempt(self._target, marker.range, plan.plan_id, lambda _: None, revision, name=name)
        attempt.begin()
        try:
            identity = plan.identity
            origin = Origin(identity.topic, identity.topic_id, marker.range, plan.plan_id, revision)
            with StagedWriter(attempt, self._columns, origin, compression=self._compression) as staged:
                for directory, rows in self._rows(marker, found):
                    staged.write(directory, rows)
                staged.complete()
                files = staged.stage()
            rows = sum(file.rows for file in files)
            made = replace(
                marker,
                plan_id=plan.plan_id,
                attempt=name,
                rows=rows,
                files=files,
                quarantined=0,
                quarantine=None,
                filtered=marker.filtered + marker.quarantined + marker.rows - rows,
                revision=revision,
                superseded=() if before is None else tuple(file.path for file in before.files),
            )
            if before is None:
                publish(self._target, attempt.commit(made), lambda _: None)
            else:
                attempt.supersede(made)
        finally:
            attempt.clean_up()

    def _rows(self, marker: Marker, found: Predictions) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield the rows of a range with their directories, a row group at a time."""
        for file in marker.files:
            path, directory = self._alerts.outdir / file.path, str(PurePosixPath(file.path).parent)
            if problems := check_file(path, file, {}):  # what has gone bad must not get a new hash
                raise LedgerError(f"{problems[0]}: fink-dask repair fetches it again")
            with pq.ParquetFile(path) as source:
                for number in range(source.num_row_groups):
                    if self._should_stop():
                        raise InterruptedTransferError("stopped while predictions were joined with their alerts")
                    table = source.read_row_group(number)
                    has, column = found.column(table[COMMON])
                    table = table.filter(pa.array(has)).append_column(COLUMN, column)
                    for batch in table.select(self._columns.names).cast(self._columns).to_batches():
                        yield "" if directory == "." else directory, batch


def joined_identity(alerts: Identity, schema: AvroSchema) -> Identity:
    """Return what a joined dataset is made of, given that of its alerts."""
    where = f"{COLUMN} is not null" if alerts.where is None else f"({alerts.where}) and {COLUMN} is not null"
    columns = None if alerts.columns is None else tuple(sorted({*alerts.columns, COLUMN}))
    return replace(alerts, schema_sha256=schema.fingerprint, schema_source=JOINED, columns=columns, where=where)


def _schema(alerts: Ledger, plans: Sequence[Plan]) -> AvroSchema:
    versions = known_versions(alerts, plans[-1].identity)
    if len(versions.schemas) > 1:
        words = f"{len(versions.schemas)} schemas, and predictions are joined with those of one"
        raise LedgerError(f"the alerts in {alerts.outdir} have {words}")
    return with_predictions(versions.first)


def _groups(markers: Iterable[Marker]) -> Iterator[list[Marker]]:
    """Yield markers in groups of about as many alerts as are looked for at once."""
    group: list[Marker] = []
    for marker in markers:
        if group and sum(each.rows for each in group) + marker.rows > _ALERTS:
            yield group
            group = []
        group.append(marker)
    if group:
        yield group


_Ints = npt.NDArray[np.int64]


class Predictions:
    """The predictions of some alerts: of each model the last one, by partition and offset."""

    def __init__(self, dataset: ds.Dataset, candids: _Ints, kind: pa.ListType) -> None:
        names = [COMMON, "model", "prediction", "kafka_partition", "kafka_offset"]
        wanted = ds.field(COMMON).isin(pa.array(np.unique(candids)))
        table = dataset.to_table(columns=names, filter=wanted).combine_chunks()
        models = table["model"].combine_chunks().dictionary_encode()
        ranks = np.argsort(np.argsort(np.array(models.dictionary.to_pylist(), object)))[models.indices.to_numpy()]
        of = table[COMMON].to_numpy()
        order = np.lexsort([table["kafka_offset"].to_numpy(), table["kafka_partition"].to_numpy(), ranks, of])
        of, ranks = of[order], ranks[order]
        is_last = np.ones(len(of), np.bool_)
        is_last[:-1] = (of[1:] != of[:-1]) | (ranks[1:] != ranks[:-1])
        found = table.take(pa.array(order[is_last]))
        # The type of the column that they make.
        self._kind = kind
        columns = [found[name].combine_chunks() for name in ("model", "prediction")]
        self._values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
        self._of = of[is_last]
        self._candids, self._starts, self._counts = np.unique(self._of, return_index=True, return_counts=True)

    def column(self, candids: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], pa.ListArray]:
        """Return which alerts have predictions, and the column of these."""
        has = np.isin(candids.fill_null(0).to_numpy(), self._candids) & candids.is_valid().to_numpy()
        places = np.searchsorted(self._candids, candids.filter(pa.array(has)).to_numpy())
        starts, counts = self._starts[places], self._counts[places]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        taken = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        return has, pa.ListArray.from_arrays(pa.array(offsets), self._values.take(pa.array(taken)), type=self._kind)

    def digest(self, candids: Iterable[_Ints], *more: str) -> str:
        """Hash the predictions of some of the alerts, to 16 hex digits."""
        mine = pa.array(np.isin(self._of, np.concatenate([np.empty(0, np.int64), *candids])))
        values = self._values.filter(mine)
        digest = hashlib.sha256("\0".join(more).encode())
        digest.update(self._of[mine.to_numpy(zero_copy_only=False)].tobytes())
        digest.update(values.field(1).to_numpy().tobytes())
        for model in values.field(0).to_pylist():
            digest.update(model.encode() + b"\0")
        return digest.hexdigest()[:16]
