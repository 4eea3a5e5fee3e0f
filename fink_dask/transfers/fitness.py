"""What a worker needs before it gets a range: the directories of the transfer, as the job sees them, and Kafka."""

from __future__ import annotations

import uuid
from pathlib import Path

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError, FinkDaskError, StorageError
from fink_dask.kafka.inspect import open_inspector
from fink_dask.ledger.ledger import Ledger

#: The result of a range that a worker did not begin, as it lacks something: its address, and what it lacks.
Unfit = tuple[str, str]


def check_fitness(ledger: Ledger, made: Path, kafka: KafkaSettings, topic: str) -> None:
    """Check that this process has what a range needs.

    Parameters
    ----------
    ledger : Ledger
        Where ranges are staged and committed.
    made : pathlib.Path
        Something in it that the job made, under a name that nobody else would use.
    kafka : KafkaSettings
        The brokers.
    topic : str
        The topic that must be there.

    Raises
    ------
    StorageError
        If this process does not see the ledger as the job does, or may not write there.
    BrokerError
        If it can't reach Kafka, or does not find the topic.
    """
    token = ledger.path / f".token-{uuid.uuid4().hex}"
    try:
        made.stat()
        token.write_text("seen")
        token.unlink()
    except OSError as error:
        words = f"it does not see {ledger.path} as this machine does, or may not write to it ({error.strerror})"
        raise StorageError(words) from error
    try:
        with open_inspector(kafka) as inspector:
            inspector.describe(topic)
    except FinkDaskError as error:
        kind = type(error) if isinstance(error, BrokerError) else BrokerError
        raise kind(f"it can't reach Kafka: {error}") from error
