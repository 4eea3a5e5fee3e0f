"""What a format of data files has to do, and what all data files have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.schema import AvroSchema
from fink_dask.config import COMPRESSION
from fink_dask.kafka.offsets import Range
from fink_dask.kafka.topics import topic_hash

Offsets = npt.NDArray[np.int64]
Partitions = npt.NDArray[np.int32]

#: Added to every alert, so that the dataset proves itself even without its ledger.
KAFKA_FIELDS = (
    pa.field("kafka_partition", pa.int32(), nullable=False),
    pa.field("kafka_offset", pa.int64(), nullable=False),
)
#: The rows of formats that keep records: their bytes as they were in Kafka, and where they were there.
RAW_SCHEMA = pa.schema([pa.field("value", pa.binary(), nullable=False), *KAFKA_FIELDS])


#: What reading a file raises that is damaged, or not one of ours.
UNREADABLE = (OSError, KeyError, ValueError, pa.ArrowException)
_REASON_CHARS = 200


def why_unreadable(error: Exception) -> str:
    """Say one of `UNREADABLE` in a line, without the file's name."""
    words = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return words.splitlines()[0][:_REASON_CHARS]


@dataclass(frozen=True)
class Origin:
    """Where the rows of a file come from; written in its footer.

    Parameters
    ----------
    topic, topic_id : str
        The topic and Kafka's id of it.
    range : Range
        The range.
    plan_id : str
        The plan that holds the range.
    revision : int
        The marker's revision, which the name of a file tells apart; see `Marker`.
    """

    topic: str
    topic_id: str
    range: Range
    plan_id: str
    revision: int = 0

    @property
    def stem(self) -> str:
        """Name of the file without its suffix, the same in the directory of each partition key and for each attempt."""
        numbers = f"{self.range.partition}-{self.range.start}-{self.range.end}"
        revision = f"-{self.revision}" if self.revision else ""
        return f"part-{topic_hash(self.topic)}-{numbers}-{self.plan_id}{revision}"

    @property
    def staged_prefix(self) -> str:
        """What staged names begin with, as a marker may name staged files of several revisions."""
        return f"{self.revision}-" if self.revision else ""

    def footer(self) -> dict[str, str]:
        """Return the key-value metadata of the file."""
        return {
            "fink_dask.topic": self.topic,
            "fink_dask.topic_id": self.topic_id,
            "fink_dask.partition": str(self.range.partition),
            "fink_dask.start": str(self.range.start),
            "fink_dask.end": str(self.range.end),
            "fink_dask.plan": self.plan_id,
        }


@dataclass(frozen=True)
class Layout:
    """What the rows of a file are.

    Parameters
    ----------
    columns : pyarrow.Schema
        Its columns; `RAW_SCHEMA` where the format keeps records.
    compression : str
        Codec, one of `fink_dask.config.COMPRESSIONS`, where the format has them.
    records : AvroSchema, optional
        The schema of the records, where the format keeps them.
    """

    columns: pa.Schema
    compression: str = COMPRESSION
    records: AvroSchema | None = None


@dataclass(frozen=True)
class Contents:
    """What a file says of itself.

    Parameters
    ----------
    rows : int
        Its alerts.
    footer : dict of str to str
        Where they come from; see `Origin.footer`.
    """

    rows: int
    footer: dict[str, str]


class DataFileWriter(Protocol):
    """A file in the making; the same rows and origin make the same bytes."""

    def write_table(self, table: pa.Table) -> None:
        """Add rows, in the order of their offsets."""

    def close(self) -> None:
        """Complete the file, and close it even where that fails."""


class DataFormat(Protocol):
    """A format of data files.

    Reading what is damaged, or not one of ours, raises one of `UNREADABLE`; `verify` then names the file.
    """

    #: What its files are called after; no two formats have the same.
    suffix: str

    def create(self, path: Path, layout: Layout, origin: Origin) -> DataFileWriter:
        """Begin a file that will say of itself what `Origin.footer` returns."""

    def read_contents(self, path: Path) -> Contents:
        """Read what a file says of itself."""

    def read_places(self, path: Path) -> tuple[Partitions, Offsets]:
        """Read partition and offset of each row of a file, in the order of the rows."""

    def read_alerts(
        self, path: Path, numbers: Sequence[int], records: AvroSchema
    ) -> Sequence[dict[str, Any]] | Sequence[bytes]:
        """Read some rows of a file, counted from 0 and in order: their values, or the bytes of records of this schema.

        Raises
        ------
        LedgerError
            If the file has fewer.
        """

    def read_through(self, path: Path) -> None:
        """Read all of a file, so that damage anywhere in it is found; not all of it is in memory at once."""
