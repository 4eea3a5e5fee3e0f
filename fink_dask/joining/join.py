"""Join alerts with the predictions that models of FinkAI have made of them: a dataset made of two others.

Alerts and predictions were transferred as any topic is, each into a dataset of its own. The joined dataset has the
plans of the alerts, and is made range by range, by attempts like any other: staged, marked, published. An attempt is
called after what it makes, so a range is left alone until something of it has changed, and then becomes the next
revision.
Alerts without a prediction are no rows: its ledger counts them as filtered, and theirs has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.avro.evolution import Versions
from fink_dask.avro.predictions import COLUMN, COMMON, with_predictions
from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.columns import file_schema, known_versions, partitioning_of
from fink_dask.dataset.formats import Origin, why_unreadable
from fink_dask.dataset.presence import check_file
from fink_dask.dataset.read import open_dataset
from fink_dask.dataset.writer import StagedWriter
from fink_dask.errors import InterruptedTransferError, LedgerError
from fink_dask.joining.predictions import Predictions
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
        before = self._target.plans()
        if [plan.plan_id for plan in before] != [plan.plan_id for plan in self._plans[: len(before)]]:
            raise LedgerError(f"{self._target.outdir} was not made of the alerts in {self._alerts.outdir}")
        for number, plan in enumerate(self._plans[len(before) :], len(before)):
            self._target.freeze(plan, self._schema, self._plans[:number])
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
