"""What can go wrong, said in words: one root error and a few children.

Every argument of a constructor goes to ``Exception.__init__`` by position and ``__str__`` formats them, because only
that form survives pickling, and errors travel from Dask workers to the client.
"""

from __future__ import annotations


class FinkDaskError(Exception):
    """Report a failure that a user can act on, in one line.

    Parameters
    ----------
    message : str
        What happened and what to do about it, without a full stop.
    topic : str, optional
        The Kafka topic it happened in.
    partition : int, optional
        The Kafka partition.
    offset : int, optional
        The offset of the record, or the next offset to read.
    """

    exit_code = 1
    #: Whether the same range may succeed when it is tried again.
    transient = False

    def __init__(
        self, message: str, topic: str | None = None, partition: int | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message, topic, partition, offset)
        self.message = message
        self.topic = topic
        self.partition = partition
        self.offset = offset

    def __str__(self) -> str:
        if self.topic is None:
            return self.message
        where = self.topic if self.partition is None else f"{self.topic}[{self.partition}]"
        if self.offset is not None:
            where += f" at offset {self.offset}"
        return f"{where}: {self.message}"


class SettingsError(FinkDaskError):
    """A setting, an option or a file of settings is wrong; nothing was done."""

    exit_code = 2


class BrokerError(FinkDaskError):
    """Kafka did not answer, refused, or does not hold what was asked for."""


class BrokerUnavailableError(BrokerError):
    """Kafka did not answer in time; the same request may succeed later."""

    transient = True


class CrowdedLineError(BrokerUnavailableError):
    """Kafka answers, and nothing that was asked for comes in time: too much of it is on its way at once."""


class SchemaError(FinkDaskError):
    """An Avro schema is missing, hostile, or of an unsupported form."""


class MissingSchemaError(SchemaError):
    """A topic has no schema, or none yet."""


class LedgerError(FinkDaskError):
    """The ledger and what was asked for, or what is on disk, disagree."""


class StorageError(FinkDaskError):
    """The file system refused: full, read-only, gone, or not able to do what a commit needs."""


class TransferError(FinkDaskError):
    """One or more ranges failed; what is committed stays committed."""


class InterruptedTransferError(FinkDaskError):
    """A signal or a cancellation ended the transfer; it can be resumed."""
