"""Wait for topics that are not there yet: Fink makes one, its schema and its first alert minutes after a request."""

from __future__ import annotations

import time
from dataclasses import replace

from fink_dask.errors import BrokerUnavailableError, FinkDaskError, MissingSchemaError
from fink_dask.kafka.inspect import Inspector, TopicDescription
from fink_dask.kafka.topics import TopicChoice, holds_predictions
from fink_dask.ledger.outdir import find_ledger
from fink_dask.planning.several import is_new, settings_of
from fink_dask.progress.events import Doing, Note, Observer
from fink_dask.settings import TransferSettings
from fink_dask.units import duration_words

#: Seconds between two looks, and how many times longer than a look they are at least: a look brings all topics.
_LOOK_S, _RESTS = 1.0, 4


def wait_for_topics(settings: TransferSettings, choice: TopicChoice, inspector: Inspector, observe: Observer) -> None:
    """Wait until all topics that were asked for can be transferred, as long as the settings say.

    Whoever follows a topic waits for its schema and its first alert anyway, so then only the topic is waited for. Where
    the time is over, what is lacking is said by whoever needs it.

    Raises BrokerError if the broker does not answer the first time, or refuses.
    """
    if settings.wait_for_topic_s is None:
        return
    began, said, heard = time.monotonic(), "", False
    while True:
        now = time.monotonic()
        try:
            lacking = _lacking(settings, choice, inspector)
        except BrokerUnavailableError as error:
            if not heard:
                raise
            lacking = f"Kafka, which does not answer ({error})"
        heard = True
        left_s = began + settings.wait_for_topic_s - time.monotonic()
        if not lacking or left_s <= 0:
            return
        if lacking != said:
            said = lacking
            words = f"waiting for {lacking}, {duration_words(settings.wait_for_topic_s)} at most"
            observe(Note(words))  # Doing counts the seconds
            observe(Doing(words))
        time.sleep(min(left_s, max(_LOOK_S, _RESTS * (time.monotonic() - now))))


def _lacking(settings: TransferSettings, choice: TopicChoice, inspector: Inspector) -> str:
    """Say what is not there; empty where nothing is lacking."""
    listed = inspector.topics()
    for name in (*(name for name in choice.names if name not in listed), *choice.unmatched(listed)):
        return f"topic {name}"
    if settings.follow is not None:
        return ""
    topics = choice.of(listed)
    for name, found in inspector.describe_each(listed, topics).items():
        own = settings_of(replace(settings, topic=name), choice, name)
        if not isinstance(found, TopicDescription):
            if isinstance(found, BrokerUnavailableError):
                raise found
            return f"topic {name}"
        if find_ledger(own.outdir).exists():
            continue
        if is_new(found):
            return f"the first alert of {name}"
        try:
            if settings.schema_file is None and not holds_predictions(name):
                inspector.schema(name, found)
        except MissingSchemaError:
            return f"the schema of {name}"
        except BrokerUnavailableError:
            raise
        except FinkDaskError:
            continue  # which is said when it is needed
    return ""
