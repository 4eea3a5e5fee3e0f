"""Find the topics that are meant, and whether each can be transferred: at the beginning, and as others appear."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from fink_dask.errors import BrokerError, BrokerUnavailableError, FinkDaskError, MissingSchemaError, SettingsError
from fink_dask.kafka.client import Suspicion
from fink_dask.kafka.inspect import Inspector, TopicDescription
from fink_dask.kafka.topics import MAX_TOPICS, TopicChoice
from fink_dask.ledger.ledger import storage_error
from fink_dask.transfers.events import Note
from fink_dask.transfers.topic import TopicTransfer


@dataclass(frozen=True)
class Look:
    """One look at a topic.

    Parameters
    ----------
    description : TopicDescription or None
        What was seen.
    error : FinkDaskError or None
        Why nothing was seen.
    """

    description: TopicDescription | None
    error: FinkDaskError | None = None


class Finder:
    """Looks at all topics that are meant, in one round; for one thread at a time.

    Parameters
    ----------
    choice : TopicChoice
        Which are meant.
    make : callable
        Makes the transfer of a topic from its name.
    is_patient : bool
        Wait for the schema of a topic that has none yet, as when following.

    Attributes
    ----------
    lacking : dict of str to MissingSchemaError
        Topics that held alerts but had no schema at the last look.
    empty : dict of str to None
        Topics that held nothing at the last look, in the order in which they were seen.
    unmatched : list of str
        Patterns that matched nothing at the last look.
    listed : list of str
        All topics of the broker at the last look.
    """

    def __init__(self, choice: TopicChoice, make: Callable[[str], TopicTransfer], is_patient: bool = False) -> None:
        self._is_patient = is_patient
        self.lacking: dict[str, MissingSchemaError] = {}
        self._choice = choice
        self._make = make
        self._found: SimpleQueue[TopicTransfer] = SimpleQueue()
        self._followed: dict[str, None] = {}
        self._failed: set[str] = set()
        self._is_first = True
        self._suspicions: defaultdict[str, Suspicion] = defaultdict(Suspicion)
        self.empty: dict[str, None] = {}
        self.unmatched: list[str] = []
        self.listed: list[str] = []

    def look(self, inspector: Inspector) -> dict[str, Look]:
        """Look at the topics that were found before, and find those that were not.

        Returns
        -------
        dict of str to Look
            What was seen of the topics that were found before.

        Raises
        ------
        BrokerError
            If the broker refuses or does not answer.
        SettingsError
            If there are too many.
        """
        listed = inspector.topics()
        self.listed, self.unmatched = list(listed), self._choice.unmatched(listed)
        new = [name for name in self._choice.of(listed) if name not in self._followed and name not in self._failed]
        room = MAX_TOPICS - len(self._followed) - len(self._failed)
        if len(new) > room and self._is_first:
            words = f"{len(new):,} topics are too many: at most {MAX_TOPICS} are transferred together"
            raise SettingsError(f"{words}; give narrower patterns")
        described = inspector.describe_each(listed, [*self._followed, *new])
        looks = {name: self._judge(name, described[name]) for name in self._followed}
        for name in new[: room + 1]:
            self._try(name, described[name], inspector, has_room=name in new[:room])
        self._is_first = False
        return looks

    def take(self) -> list[TopicTransfer]:
        """Return the transfers that were found since the last call; those that can't go ahead say why."""
        found = []
        try:
            while True:
                found.append(self._found.get_nowait())
        except Empty:
            return found

    def _wait_for_schema(self, transfer: TopicTransfer, error: MissingSchemaError) -> None:
        if transfer.topic not in self.lacking:
            transfer.observe(Note("there is no schema yet: waiting for it"))
        self.lacking[transfer.topic] = error
        self.empty.pop(transfer.topic, None)

    def give_up(self) -> None:
        """Call a topic that still has no schema a failure; `take` returns it."""
        for name, error in self.lacking.items():
            transfer = self._make(name)
            transfer.error = error
            self._failed.add(name)
            self._found.put(transfer)
        self.lacking.clear()

    def _judge(self, name: str, found: TopicDescription | BrokerError) -> Look:
        if isinstance(found, TopicDescription):
            self._suspicions[name].clear()
            return Look(found)
        # A broker that has just come back may not know its topics yet.
        if found.transient or self._suspicions[name].confirms("missing"):
            return Look(None, found)
        return Look(None, BrokerUnavailableError(found.message, name))

    def _try(self, name: str, described: TopicDescription | BrokerError, inspector: Inspector, has_room: bool) -> None:
        transfer = self._make(name)
        try:
            if transfer.error is not None:
                raise transfer.error
            if not has_room:
                words = f"at most {MAX_TOPICS} topics are transferred together: transfer it with another command"
                raise SettingsError(words, name)
            if isinstance(described, TopicDescription) and _is_new(described) and not transfer.ledger.exists():
                self.empty[name] = None
                return
            if not transfer.find(inspector, described if isinstance(described, TopicDescription) else None):
                self.empty[name] = None
                return
        except OSError as error:
            transfer.error = storage_error(error, transfer.ledger.path)
        except BrokerUnavailableError:
            if self._is_first:
                raise
            return  # the next look will tell
        except FinkDaskError as error:
            if self._is_patient and has_room and isinstance(error, MissingSchemaError):
                self._wait_for_schema(transfer, error)
                return
            # A topic that was only just created may still lack its schema.
            if not self._is_first and has_room and not self._suspicions[name].confirms(type(error).__name__):
                return
            transfer.error = error
        self.empty.pop(name, None)
        self.lacking.pop(name, None)
        if transfer.error is None:
            self._followed[name] = None
        else:
            self._failed.add(name)
        self._found.put(transfer)


def _is_new(description: TopicDescription) -> bool:
    """Tell whether a topic has never held anything."""
    return not any(marks.stable for marks in description.watermarks.values())
