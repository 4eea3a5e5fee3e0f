"""Open a dataset as its ledger knows it: the files that are committed, with the types that the alerts had."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from fink_dask.avro.evolution import Versions
from fink_dask.dataset.formats import reading
from fink_dask.dataset.presence import missing_error
from fink_dask.dataset.schema_versions import check_is_parquet, file_schema, known_versions, partitioning_of
from fink_dask.dataset.season import TOPIC, unite
from fink_dask.dataset.surveys import Fields, find_fields
from fink_dask.dataset.unique import is_first
from fink_dask.ledger.commit import missing_files, published
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import find_datasets, find_ledger, total_of
from fink_dask.ledger.records import Identity, Marker
from fink_dask.ledger.summary import absent_words, summarise
from fink_dask.store.location import locate


def open_dataset(outdir: str | os.PathLike[str], *, unique: bool = False) -> ds.Dataset:
    """Open a dataset that fink-dask has written, for reading with pyarrow and whatever takes its datasets.

    Only files that the ledger names are read: neither a foreign file below `outdir` nor what a transfer is writing now.
    A range of the topic that is committed but not published yet, because its transfer is at work or was killed, is left
    out whole. What is committed later is there when the dataset is opened again.

    Partition columns have the types that they had in the alerts, such as int64 for ``classId``; those of ``time`` are
    int32. What is in the directory of null is null.

    Parameters
    ----------
    outdir : str or os.PathLike
        The dataset's directory, or ``s3://BUCKET/NAME``; its ledger ``OUTDIR.fink`` is beside it. A directory with the
        datasets of several topics is opened as one dataset.
    unique : bool
        Give each alert once, by ``candid`` of ZTF or ``diaSourceId`` of LSST, where several topics have it, or Fink has
        sent it again: the first by the topic's name, then by Kafka's partition and offset. All identifiers are read
        for that, and the dataset has no fragments to ask for.

    Returns
    -------
    pyarrow.dataset.Dataset
        The columns of the alerts, then ``kafka_partition`` and ``kafka_offset``, then the partition columns. Of several
        topics, the columns of all, null where a topic lacks one, and ``topic``.

    Raises
    ------
    LedgerError
        If there is no ledger, it is damaged, or a file that it names is gone or was cut short; if several topics have
        a column of different types, or are of different surveys.
    SettingsError
        If `unique` is asked for, and alerts have no identifier.
    StorageError
        If the file system, or the object store, refuses.
    """
    place = locate(outdir).resolve()
    opened, is_one = open_parts(place), find_ledger(place).exists()
    named = [(each.ledger.outdir.name, each.dataset, each.versions) for each in opened]
    dataset = opened[0].dataset if is_one else unite(place, named)
    if not unique:
        return dataset
    with reading(place):
        first = is_first([(name, each) for name, each, _ in named], None if is_one else TOPIC)
    return dataset if first is None else dataset.filter(first)


def open_known(outdir: Path, known: Sequence[tuple[Ledger, Identity, Sequence[Marker]]]) -> ds.Dataset:
    """Open a dataset, or several topics as one, whose markers were read and whose files were found a moment ago.

    `known`: the ledger of each, what it says of its topic, and its committed ranges.
    """
    opened = []
    for ledger, identity, markers in known:
        check_is_parquet(ledger, "open_dataset")
        opened.append(_opened(ledger, identity, published(ledger, markers)))
    if known[0][0].outdir == outdir:
        return opened[0].dataset
    return unite(outdir, [(each.ledger.outdir.name, each.dataset, each.versions) for each in opened])


def open_each(outdir: str | os.PathLike[str]) -> list[tuple[ds.Dataset, Fields]]:
    """Open a dataset, or each of several topics by itself, as `open_dataset` does, and tell what its columns are."""
    return [(each.dataset, find_fields(each.dataset.schema)) for each in open_parts(outdir)]


@dataclass(frozen=True)
class Part:
    """What was opened of the dataset of a topic."""

    ledger: Ledger
    #: What is said of the topic there.
    identity: Identity
    #: The committed ranges whose files it has.
    markers: list[Marker]
    dataset: ds.Dataset
    #: The schemas of its alerts.
    versions: Versions


def open_parts(
    outdir: str | os.PathLike[str], is_wanted: Callable[[Identity, Marker], bool] = lambda *_: True
) -> list[Part]:
    """Open a dataset, or each of several topics by itself, as `open_dataset` does, or the files of some ranges."""
    ledger, several = find_datasets(locate(outdir).resolve())
    return [_open(each, is_wanted) for each in several or [ledger]]


def absent_from(outdir: str | os.PathLike[str]) -> str:
    """Say which alerts came and are not in a dataset, or those of several topics; see `absent_words`."""
    ledger, several = find_datasets(locate(outdir).resolve())
    return absent_words(total_of([summarise(each).summary for each in several or [ledger]]))


def _open(ledger: Ledger, is_wanted: Callable[[Identity, Marker], bool]) -> Part:
    """Open the dataset of a topic."""
    check_is_parquet(ledger, "open_dataset")
    plans = ledger.plans()
    identity = plans[-1].identity
    committed = [marker for marker in ledger.markers(plans) if is_wanted(identity, marker)]
    markers = published(ledger, committed)
    if gone := missing_files(ledger, markers):
        raise missing_error(gone)
    return _opened(ledger, identity, markers)


def _opened(ledger: Ledger, identity: Identity, markers: list[Marker]) -> Part:
    """Open the files of ranges that are there."""
    versions = known_versions(ledger, identity)
    files, partition_columns = _columns(versions, identity)
    names = sorted({file.path for marker in markers for file in marker.files})
    filesystem, root = ledger.store.filesystem(ledger.outdir)
    schema = pa.schema([*files, *partition_columns])
    if not names:
        return Part(ledger, identity, markers, ds.dataset([], schema=schema), versions)
    dataset = ds.dataset(
        [f"{root}/{name}" for name in names],
        schema=schema,
        filesystem=filesystem,
        format="parquet",
        partitioning=ds.partitioning(partition_columns, flavor="hive"),
        partition_base_dir=root,
    )
    return Part(ledger, identity, markers, dataset, versions)


def _columns(versions: Versions, identity: Identity) -> tuple[pa.Schema, pa.Schema]:
    """Find the columns of the files, and those that the directories are called after."""
    partitioning = partitioning_of(identity, versions)
    return file_schema(versions, identity, partitioning), partitioning.schema(versions.arrow)
