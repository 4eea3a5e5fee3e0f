"""The topics of a run: which are meant, at the beginning and as others appear, and whether each can be transferred.

Each has a dataset of its own, and the failure of one is not a failure of the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from fink_dask.errors import (
    BrokerError,
    BrokerUnavailableError,
    FinkDaskError,
    LedgerError,
    MissingSchemaError,
    SettingsError,
    parameter,
)
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.confluent import Debounce
from fink_dask.kafka.inspect import Inspector, TopicDescription
from fink_dask.kafka.topics import MAX_TOPICS, TopicChoice, holds_predictions, survey_of
from fink_dask.ledger.ledger import storage_error
from fink_dask.ledger.outdir import check_name, datasets_in, find_ledger
from fink_dask.ledger.summary import summarise
from fink_dask.planning.ahead import is_small
from fink_dask.planning.continuing import like_the_others
from fink_dask.planning.forecast import Machine, has_room, require_room
from fink_dask.planning.topic import TopicTransfer
from fink_dask.progress.events import Event, Forecast, Note, Observer
from fink_dask.progress.tally import Progress
from fink_dask.settings import FRAMINGS, TransferSettings
from fink_dask.units import pluralize

#: Of predictions all are taken: what was asked for is asked of their alerts.
_ALL_OF_IT: dict[str, Any] = {
    **dict.fromkeys(
        ("partitionby", "columns", "where", "outformat", "survey", "limit", "since", "until", "schema_file")
    ),
    "framing": FRAMINGS[0],
}


class Topics:
    """The transfers of a run; `run_ranges` tells them what fails."""

    def __init__(
        self, choice: TopicChoice, settings: TransferSettings, progress: Progress, restart: bool, machine: Machine
    ) -> None:
        # Which topics are meant.
        self.choice = choice
        # What was asked for. Where there are, or may be, several topics, each has a dataset ``OUTDIR/TOPIC``.
        self.settings = settings
        #: What the run has done, with all topics and with each.
        self.progress = progress
        # Move existing datasets aside first.
        self._restart = restart
        self._machine = machine
        self._transfers: dict[str, TopicTransfer] = {}
        # Surveys of which a topic has begun.
        self._surveys: set[str | None] = {None}
        self._checked = 0

    @property
    def open(self) -> list[TopicTransfer]:
        """The transfers that have begun, and of which nothing has failed."""
        return [transfer for transfer in self._transfers.values() if transfer.is_open]

    def make(self, topic: str) -> TopicTransfer:
        """Make the transfer of a topic, which may then be found or not."""
        settings = settings_of(self.settings, self.choice, topic)
        transfer = TopicTransfer(settings, self._of(topic), self.progress, self._restart, self.choice.is_several)
        if self.choice.is_several:
            try:
                check_name(topic)
            except FinkDaskError as error:
                transfer.error = error
        return transfer

    def begin(self, transfer: TopicTransfer) -> bool:
        """Take in a transfer that was found, and begin it; return whether it has begun.

        Raises FinkDaskError if it can't be transferred, and no other topic was asked for.
        """
        self._transfers[transfer.topic] = transfer
        with self.alone(transfer):
            if transfer.error is not None:
                raise transfer.error
            transfer.begin()
            with suppress(FinkDaskError):  # it warns, and holds up nothing
                self._say_survey(transfer.topic)
        return transfer.is_open

    def _say_survey(self, topic: str) -> None:
        """Warn where a topic is the first one of another survey than the others."""
        survey = survey_of(topic)
        if not self.choice.is_several or survey in self._surveys:
            return
        self._surveys.add(survey)
        if words := mixed_surveys(self.settings.outdir, self._transfers):
            self.progress(Note(words, warning=True))

    def require_room(self, admin: Admin) -> None:
        """Estimate the work, and refuse what the disk has no room for.

        Raises StorageError if there is too little room, and it is not forced.
        """
        found = self._estimates(admin)
        # Each may have room alone, so that none was looked at closely, and yet not all of them together.
        if len(found) > 1 and not has_room(found):
            found = self._estimates(admin, samples=True)
        require_room(found, self.settings)

    @property
    def is_small(self) -> bool:
        """Whether all that is planned is known to be little, once it is estimated."""
        found = [transfer.forecast for transfer in self.open]
        sizes = [None if each is None else each.wire_bytes for each in found]
        known = [size for size in sizes if size is not None]
        return len(known) == len(sizes) and is_small(sum(each.alerts for each in found if each), sum(known))

    def _estimates(self, admin: Admin, samples: bool = False) -> list[Forecast]:
        found = []
        for transfer in self.open:
            with self.alone(transfer):
                found.append(transfer.estimate(self._machine, samples, admin))
        return found

    def add_empty(self, topic: str) -> None:
        """Take in a topic that held nothing until the end."""
        if topic not in self._transfers:
            transfer = self._transfers[topic] = self.make(topic)
            transfer.be_empty()

    def add_gone(self, listed: Collection[str]) -> None:
        """Take in datasets that match a pattern, lack offsets, and can't be completed, as Kafka lost their topics."""
        if not self.choice.patterns:
            return
        found = {ledger.outdir.name: ledger for ledger in datasets_in(self.settings.outdir)}
        for topic in self.choice.of(found):
            if topic in self.choice.names or topic in listed:
                continue
            transfer = self.make(topic)
            with suppress(FinkDaskError):
                missing = summarise(found[topic]).missing_offsets
                if not missing:
                    continue
                lacking = pluralize(missing, "planned offset")
                words = f"Kafka no longer has this topic, and the dataset lacks {lacking} of it"
                transfer.error = BrokerError(words, topic)
                self.begin(transfer)

    @contextmanager
    def alone(self, transfer: TopicTransfer, *fatal: type[FinkDaskError]) -> Iterator[None]:
        """Let a failure in the block concern one topic only, where there are others.

        `*fatal`: errors that concern all topics; an absent broker always does.
        Raises FinkDaskError if it is one of those, or no other topic was asked for.
        """
        try:
            yield
        except FinkDaskError as error:
            if self.choice.is_one or isinstance(error, (BrokerUnavailableError, *fatal)):
                raise
            transfer.error = error
            self._say_failure(transfer.topic, error)

    @property
    def committed(self) -> int:
        """Alerts that are committed, those of earlier runs too."""
        return self.progress.whole.committed

    def failed(self, topic: str, error: FinkDaskError) -> None:
        """Take note of the failure of a range; the ranges of other topics go on."""
        transfer = self._transfers[topic]
        transfer.failed_at(error)
        if not self.choice.is_one and transfer.error is None:
            self._say_failure(topic, error)

    def failure(self) -> FinkDaskError | None:
        """Return a failure that did not end the others, if there is any."""
        errors = (transfer.error or transfer.range_failure for transfer in self._transfers.values())
        return next((error for error in errors if error is not None), None)

    def is_over(self, topic: str) -> bool:
        """Tell whether the waiting ranges of a topic are no longer wanted."""
        return self._transfers[topic].is_over

    def check(self) -> None:
        """Look at the lease of one of the topics, a different one each time.

        Raises LedgerError if another job has taken over, and no other topic was asked for.
        """
        transfers = self.open
        if transfers:
            self._checked += 1
            transfer = transfers[self._checked % len(transfers)]
            with self.alone(transfer):
                transfer.check()

    def each(self, do: Callable[[TopicTransfer], object]) -> None:
        """Do something for each open topic; one that fails does not affect the others."""
        for transfer in self.open:
            with self.alone(transfer):
                do(transfer)

    def settle(self) -> None:
        """Settle all that have begun, whatever has failed; no attempt of this run may go on.

        Raises FinkDaskError if one can't be settled, and no other topic was asked for.
        """
        for transfer in self._transfers.values():
            if transfer.error is None:
                with self.alone(transfer):
                    transfer.settle()
            else:
                with suppress(FinkDaskError):  # it has failed already, and that is what counts
                    transfer.settle()

    def finish(self, inspector: Inspector) -> None:
        """Complete and sum up all of them.

        Raises FinkDaskError if one is not complete, and no other topic was asked for.
        """
        for transfer in self._transfers.values():
            failure = transfer.range_failure
            if failure is not None and transfer.error is None:
                transfer.error = failure  # its ranges were reported as they failed
                if self.choice.is_one:
                    raise failure
            if transfer.is_open:
                with self.alone(transfer):
                    transfer.finish(inspector)
            if transfer.error is not None:
                transfer.give_up()

    def end(self) -> None:
        """Give all leases back."""
        for transfer in self._transfers.values():
            transfer.end()

    def results(self) -> list[TopicTransfer]:
        """List all transfers, by topic."""
        return [transfer for _, transfer in sorted(self._transfers.items())]

    def _of(self, topic: str) -> Observer:
        """Make notes say which of several topics they are about."""

        def observe(event: Event) -> None:
            if isinstance(event, Note) and self.choice.is_several and not event.text.startswith(topic):
                event = replace(event, text=f"{topic}: {event.text}")
            self.progress(event)

        return observe

    def _say_failure(self, topic: str, error: FinkDaskError) -> None:
        self._of(topic)(Note(f"{error}; other topics go on", warning=True))


def joining(choice: TopicChoice, outdir: Path) -> TopicChoice:
    """Take a single topic for one of several where the directory holds the datasets of others.

    A pattern leaves out what is there under another name, as after `fink-dask season`: each alert would be there twice.

    Raises LedgerError if one of these holds a topic that is named under another name.
    """
    if not choice.is_several and find_ledger(outdir).exists():
        return choice
    others = {ledger.outdir.name: ledger for ledger in datasets_in(outdir)}
    elsewhere = {}
    for name, ledger in others.items():
        with suppress(FinkDaskError):  # a dataset that is damaged holds up no other
            topic = ledger.begun_with().topic
            if topic not in others and not holds_predictions(name):
                elsewhere[topic] = ledger.outdir
    if others and choice.is_one and holds_predictions(choice.names[0]):
        words = f"{outdir} holds the datasets of other topics, and predictions are joined with their alerts alone"
        raise LedgerError(f"{words}: choose another {parameter('outdir')}", choice.names[0])
    if there := next((topic for topic in choice.names if topic in elsewhere), None):
        words = f"{outdir} has this topic already, as {elsewhere[there]}"
        raise LedgerError(f"{words}: give that as {parameter('outdir')}", there)
    if choice.is_several:
        return replace(choice, elsewhere=elsewhere)
    return replace(choice, joins=bool(others))


def mixed_surveys(outdir: Path, topics: Iterable[str]) -> str:
    """Warn of topics of two surveys in one directory, as names tell; whoever has begun both goes on with both."""
    held: set[str | None] = set()
    for ledger in datasets_in(outdir):
        with suppress(FinkDaskError):  # a dataset that is damaged holds up no other
            held.add(survey_of(ledger.begun_with().topic))
    together = {*held, *map(survey_of, topics)} - {None}
    if len(held - {None}) > 1 or len(together) < 2:
        return ""
    surveys = " and ".join(sorted(str(each).upper() for each in together))
    words = f"{outdir} will hold alerts of {surveys}, which no table holds together: give those of one survey another"
    return f"{words} --outdir if they are to be exported, or opened as one dataset"


def settings_of(settings: TransferSettings, choice: TopicChoice, topic: str) -> TransferSettings:
    """Return the settings of one of the topics."""
    if not choice.is_several:
        return settings
    settings = replace(settings, topic=topic, outdir=settings.outdir / topic)
    return replace(settings, **_ALL_OF_IT) if holds_predictions(topic) else settings


def settings_of_all(settings: TransferSettings, choice: TopicChoice) -> TransferSettings:
    """Take what was not given from the datasets of the same survey that are there, where these are alike.

    Each of those that are there goes on with its own, which is seen to when it is found.
    """
    surveys = {survey_of(name) for name in (*choice.names, *choice.patterns)}
    if not choice.is_several or len(surveys - {None}) > 1:  # what one has, the other may lack
        return settings
    begun = []
    for ledger in datasets_in(settings.outdir):
        with suppress(FinkDaskError):  # which is said of that topic when its turn comes
            identity = ledger.begun_with()
            is_akin = None in surveys or survey_of(identity.topic) in {*surveys, None}
            if is_akin and not holds_predictions(ledger.outdir.name):
                begun.append(identity)
    return like_the_others(settings, begun)


@dataclass(frozen=True)
class Snapshot:
    """One look at a topic."""

    description: TopicDescription | None
    #: Why nothing was seen.
    error: FinkDaskError | None = None


class Finder:
    """Looks at all topics that are meant, in one round; for one thread at a time."""

    def __init__(self, choice: TopicChoice, make: Callable[[str], TopicTransfer], is_patient: bool = False) -> None:
        # Wait for the schema of a topic that has none yet, as when following.
        self._is_patient = is_patient
        #: Topics that held alerts but had no schema at the last look.
        self.lacking: dict[str, MissingSchemaError] = {}
        self._choice = choice
        # Makes the transfer of a topic from its name.
        self._make = make
        self._found: SimpleQueue[TopicTransfer] = SimpleQueue()
        self._followed: dict[str, None] = {}
        self._failed: set[str] = set()
        self._is_first = True
        self._suspicions: defaultdict[str, Debounce] = defaultdict(Debounce)
        #: Topics that held nothing at the last look, in the order in which they were seen.
        self.empty: dict[str, None] = {}
        #: Patterns that matched nothing at the last look.
        self.unmatched: list[str] = []
        #: All topics of the broker at the last look.
        self.listed: list[str] = []

    def look(self, inspector: Inspector) -> dict[str, Snapshot]:
        """Look at the topics that were found before, and find those that were not.

        Returns: what was seen of the topics that were found before.
        Raises SettingsError if there are too many.
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

    def _judge(self, name: str, found: TopicDescription | BrokerError) -> Snapshot:
        if isinstance(found, TopicDescription):
            self._suspicions[name].clear()
            return Snapshot(found)
        # A broker that has just come back may not know its topics yet.
        if found.transient or self._suspicions[name].confirms("missing"):
            return Snapshot(None, found)
        return Snapshot(None, BrokerUnavailableError(found.message, name))

    def _try(self, name: str, described: TopicDescription | BrokerError, inspector: Inspector, has_room: bool) -> None:
        transfer = self._make(name)
        try:
            if transfer.error is not None:
                raise transfer.error
            if not has_room:
                words = f"at most {MAX_TOPICS} topics are transferred together: transfer it with another command"
                raise SettingsError(words, name)
            if isinstance(described, TopicDescription) and is_new(described) and not transfer.ledger.exists():
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


def is_new(description: TopicDescription) -> bool:
    """Tell whether a topic has never held anything."""
    return not any(marks.last_stable_offset for marks in description.watermarks.values())
