"""Export a dataset as a HATS catalog of objects with nested light curves, through hats-import."""

from __future__ import annotations

import glob
import importlib.util
import io
import logging
import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster

from fink_dask.catalog.buckets import deal
from fink_dask.catalog.lightcurves import find_form, gather
from fink_dask.cluster.forkserver import without_interrupts
from fink_dask.cluster.leftovers import dask_configuration
from fink_dask.dataset.formats import why_unreadable
from fink_dask.dataset.read import open_dataset
from fink_dask.errors import LedgerError, SettingsError, StorageError
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.store.durable import sync_directory, sync_file

#: About how many bytes a file of the catalog takes in memory: what a task of LSDB holds.
_FILE_BYTES = 256 * 2**20
#: Objects beyond a file's edge that are kept with it, in arcseconds, so that cross-matches miss none.
_MARGIN_ARCSEC = 10.0
#: The finest division of the sky: 0.05 square degrees, in which no survey has more objects than fit into a file.
#: hats-import makes maps of it, and its default would take sixteen times as long.
_FINEST_ORDER = 8
#: hats-import's default level is meant for published catalogs, and takes most of an export's time.
_ZSTD_LEVEL = 3
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Exported:
    """What is in a catalog, and what is not.

    Parameters
    ----------
    objects, alerts : int
        Objects, and alerts in their light curves.
    duplicates : int
        Alerts left out because another with the same identifier is there.
    without_object, without_position : int
        Alerts without an object, and alerts with one but without a position.
    """

    objects: int
    alerts: int
    duplicates: int
    without_object: int
    without_position: int


@dataclass(frozen=True)
class Caller:
    """Whom an export tells how far it is.

    Parameters
    ----------
    begin : callable
        Called with the name of a stage, and its number of steps; None if unknown.
    advance : callable
        Called with the number of steps done.
    """

    begin: Callable[[str, int | None], None] = lambda *_: None
    advance: Callable[[int], None] = lambda _: None


def export_hats(ledger: Ledger, catalog: Path, columns: Sequence[str] | None, workers: int, caller: Caller) -> Exported:
    """Write a catalog of the objects of a dataset, which appears whole or not at all.

    Parameters
    ----------
    ledger : Ledger
        The dataset, which is only read.
    catalog : pathlib.Path
        The catalog's directory, which is not there yet.
    columns : sequence of str or None
        The columns of the light curves; None for every one that is a single value.
    workers : int
        Processes that write the catalog.
    caller : Caller
        Whom to tell how far it is.

    Raises
    ------
    SettingsError
        If hats-import is not installed, the catalog exists already or can't be there, or the alerts lack what a
        catalog needs.
    LedgerError
        If the dataset is not what its ledger says, or has no object with a position.
    StorageError
        If the file system refuses, or hats-import fails.
    """
    if importlib.util.find_spec("hats_import") is None:
        raise SettingsError("export-hats needs hats-import, which is not installed: pip install 'fink-dask[hats]'")
    _check_target(ledger, catalog)
    dataset = open_dataset(ledger.outdir)
    form = find_form(dataset.schema, columns)
    aside = catalog.with_name(f".{catalog.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        aside.mkdir()
        caller.begin("reading alerts", rows := dataset.count_rows())
        dealt = deal(dataset, form, aside, rows, caller.advance)
        caller.begin("gathering light curves", len(dealt.paths))
        objects = duplicates = size = 0
        gathered = []
        for number, path in enumerate(dealt.paths):
            table, left_out = gather(pq.read_table(path, partitioning=None), form)
            path.unlink()
            gathered.append(aside / f"objects-{number:04d}.parquet")
            pq.write_table(table, gathered[-1], row_group_size=_rows_of(table), compression="lz4")
            objects, duplicates, size = objects + table.num_rows, duplicates + left_out, size + table.nbytes
            caller.advance(1)
        if not objects:
            raise LedgerError(f"{ledger.outdir} has no alert with an object and a position: there is nothing to export")
        caller.begin("writing the catalog", None)
        made = aside / "catalog"
        name = _NOT_IN_NAMES.sub("_", catalog.name)
        _import(gathered, made, name, form.object_id, max(1, _FILE_BYTES * objects // size), workers)
        _publish(made / name, catalog)
    except OSError as error:
        raise storage_error(error, aside) from error
    except pa.ArrowException as error:
        raise LedgerError(f"{ledger.outdir} can't be read: {why_unreadable(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    alerts = dealt.alerts - dealt.without_object - dealt.without_position - duplicates
    return Exported(objects, alerts, duplicates, dealt.without_object, dealt.without_position)


def unfinished(catalog: Path) -> list[Path]:
    """List what other exports to the same place have left there: they were killed, or are still running."""
    return sorted(catalog.parent.glob(f".{glob.escape(catalog.name)}.*.part"))


def _check_target(ledger: Ledger, catalog: Path) -> None:
    if catalog.exists() or catalog.is_symlink():
        raise SettingsError(f"{catalog} already exists: choose another directory, or remove it")
    if not catalog.parent.is_dir():
        raise SettingsError(f"{catalog.parent} is not a directory: make it first")
    for place in (ledger.outdir, ledger.path):
        if place in catalog.parents:
            raise SettingsError(f"{catalog} is inside {place}, whose readers would take it for alerts: choose another")


def _rows_of(table: pa.Table) -> int:
    """Return how many objects hats-import reads at once."""
    return max(1, _FILE_BYTES // 8 * int(table.num_rows) // max(int(table.nbytes), 1))


def _import(files: list[Path], made: Path, name: str, object_id: str, objects: int, workers: int) -> None:
    """Let hats-import make a collection: the catalog, and the margin that cross-matches need."""
    from hats_import.catalog.file_readers import ParquetPyarrowReader
    from hats_import.collection.arguments import CollectionArguments
    from hats_import.collection.run_import import run

    arguments = (
        CollectionArguments(
            output_path=made, output_artifact_name=name, tmp_dir=made.parent, progress_bar=False, resume=False
        )
        .catalog(
            input_file_list=files,
            file_reader=ParquetPyarrowReader(iterate_by_row_groups=True),
            ra_column="ra",
            dec_column="dec",
            sort_columns=object_id,
            highest_healpix_order=_FINEST_ORDER,
            pixel_threshold=objects,
            write_table_kwargs={"compression_level": _ZSTD_LEVEL},
        )
        .add_margin(margin_threshold=_MARGIN_ARCSEC, is_default=True)
    )
    with _without_remarks() as remarks, _cluster(min(workers, len(files))) as client:
        try:
            run(arguments, client)
        except (RuntimeError, ValueError, AssertionError) as error:
            # hats-import prints why a task failed; the error only says that one did.
            words = [*str(error).splitlines()[:1], *remarks.getvalue().strip().splitlines()[-1:]]
            raise StorageError(f"hats-import failed: {' '.join(words)[:300]}") from error


@contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    """Start the cluster in which hats-import runs its tasks: in this process for one worker, which starts sooner.

    The workers of a transfer are no use here: they are forked from a process without pandas.
    """
    with ExitStack() as stack:
        stack.enter_context(dask_configuration({"distributed.worker.multiprocessing-method": "spawn"}, is_whole=True))
        with without_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=workers > 1,
                host="127.0.0.1" if workers > 1 else None,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)  # before an interrupt that came meanwhile is raised
        client = stack.enter_context(Client(cluster))
        if workers > 1:
            client.run(_hush)
        yield client


@contextmanager
def _without_remarks() -> Iterator[io.StringIO]:
    """Keep the remarks of libraries away from the user, whose stdout is for the result; errors are still raised."""
    before, remarks = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(remarks):
            warnings.simplefilter("ignore")
            yield remarks
    finally:
        logging.disable(before)


def _hush() -> None:
    """Keep a worker from printing; what tasks print is sent to the client as well."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process


def _publish(made: Path, catalog: Path) -> None:
    """Sync everything to disk, then give it its final name."""
    for path in (made, *made.rglob("*")):
        (sync_directory if path.is_dir() else sync_file)(path)
    made.rename(catalog)
    sync_directory(catalog.parent)
