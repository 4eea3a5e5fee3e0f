"""Topics of one run are looked at in a thread of their own, and their events still come from one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fink_dask.kafka.topics import TopicChoice
from fink_dask.planning.topics import Topics
from fink_dask.progress.events import Event, Note
from fink_dask.settings import KafkaSettings, TransferSettings


def test_what_a_look_in_another_thread_has_to_say_is_said_by_the_one_that_observes(tmp_path: Path) -> None:
    said: list[tuple[int, str]] = []

    def observe(event: Event) -> None:
        assert isinstance(event, Note)
        said.append((threading.get_ident(), event.text))

    settings = TransferSettings("night", tmp_path / "alerts", KafkaSettings("127.0.0.1:1"))
    topics = Topics(TopicChoice(("night",)), settings, observe, restart=False, began=None)
    transfer = topics.make("night")
    with ThreadPoolExecutor(1) as pool:
        for text in ("first", "second"):
            pool.submit(transfer.observe, Note(text)).result()
    assert said == [], "an observer that draws is called from two threads at once"
    topics.pass_on()
    transfer.observe(Note("third"))
    assert said == [(threading.get_ident(), text) for text in ("first", "second", "third")]
