"""What decoding a batch gives, by whichever decoder: rows, and every bad record set aside with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.schema import AvroSchema
from fink_dask.errors import FinkDaskError

#: Bytes of all values of a batch. Arrow's offsets have 32 bits, and a column may hold all of them.
MAX_BATCH_BYTES = 2**31 - 1
#: Characters of a reason.
MAX_REASON_CHARS = 200
#: Why a record without a value is not a row.
TOMBSTONE = "there is no value, which is Kafka's tombstone"


@dataclass(frozen=True)
class BadRecord:
    """A record that can't be decoded.

    Parameters
    ----------
    index : int
        Its place in the batch, from 0.
    reason : str
        What is wrong with it: one line of at most `MAX_REASON_CHARS` characters.
    """

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class DecodedBatch:
    """What became of the values of a batch: each is a row, a bad record, or left out on request.

    Parameters
    ----------
    rows : pyarrow.RecordBatch
        The decoded records in their order, with exactly the Arrow schema of the decoder's schema.
    positions : numpy.ndarray of int64, shape (rows,)
        Where each row was: ``rows[i]`` is decoded from ``values[positions[i]]``.
    bad : tuple of BadRecord
        The records that can't be decoded, in order of their index.
    left_out : numpy.ndarray of int64
        Where the sound records were that nobody wanted, in order.
    """

    rows: pa.RecordBatch
    positions: npt.NDArray[np.int64]
    bad: tuple[BadRecord, ...]
    left_out: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def bad_record(index: int, reason: str) -> BadRecord:
    """Make a `BadRecord` from a reason that may be long or have many lines.

    Parameters
    ----------
    index : int
        Its place in the batch.
    reason : str
        What is wrong with it.

    Returns
    -------
    BadRecord
        The record with the beginning of the reason.
    """
    line = " ".join(reason.split())
    return BadRecord(index, line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 3]}...")


def check_size(total: int) -> None:
    """Refuse a batch that Arrow's offsets can't reach.

    Parameters
    ----------
    total : int
        Bytes of all values of the batch.

    Raises
    ------
    FinkDaskError
        If it is larger than `MAX_BATCH_BYTES`.
    """
    if total > MAX_BATCH_BYTES:
        raise FinkDaskError(f"a batch has {total:,} bytes, and Arrow holds at most {MAX_BATCH_BYTES:,}")


class Decoder(Protocol):
    """Decodes the records of one schema. It may be shared by threads, and it pickles."""

    @property
    def schema(self) -> AvroSchema:
        """The schema that the records were written with."""

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the rows: that of `schema`, or of the columns of it that are decoded."""

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch.

        Parameters
        ----------
        values : sequence of bytes or None
            One schemaless Avro datum each, as it came from Kafka; None is Kafka's tombstone. At most `MAX_BATCH_BYTES`
            together.

        Returns
        -------
        DecodedBatch
            The rows and the bad records. Hostile bytes make a record bad; they never raise.

        Raises
        ------
        FinkDaskError
            If the batch is too large for one Arrow record batch.
        """
