"""The topics of a run: each with a dataset of its own, and a failure of one is no failure of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from fink_dask.config import TransferSettings
from fink_dask.errors import BrokerError, BrokerUnavailableError, FinkDaskError
from fink_dask.kafka.choice import TopicChoice
from fink_dask.kafka.describe import Inspector
from fink_dask.ledger.several import check_name, datasets_in
from fink_dask.ledger.summary import summarise
from fink_dask.nouns import counted
from fink_dask.transfers.events import Event, Note, Observer, RangeCommitted, RangeFailed, RangeProgress
from fink_dask.transfers.forecast import Forecast, has_room, require_room
from fink_dask.transfers.topic import TopicTransfer


class Topics:
    """The transfers of a run; `run_ranges` tells them what fails.

    Parameters
    ----------
    choice : TopicChoice
        Which topics are meant.
    settings : TransferSettings
        What is asked for. Where several topics are, or may be, each has a dataset ``OUTDIR/TOPIC``.
    observe : callable
        Takes the events.
    restart : bool
        Move what is there aside first.
    began : float, optional
        When the program began, on the clock of `time.monotonic`.
    """

    def __init__(
        self, choice: TopicChoice, settings: TransferSettings, observe: Observer, restart: bool, began: float | None
    ) -> None:
        self.choice = choice
        self._settings = settings
        self._observe = observe
        self._restart = restart
        self._began = began
        self._transfers: dict[str, TopicTransfer] = {}
        self._checked = 0

    @property
    def open(self) -> list[TopicTransfer]:
        """Those that have begun, and of which nothing has failed."""
        return [transfer for transfer in self._transfers.values() if transfer.is_open]

    def make(self, topic: str) -> TopicTransfer:
        """Make the transfer of a topic, which then is found or not."""
        settings = settings_of(self._settings, self.choice, topic)
        transfer = TopicTransfer(settings, self._of(topic), self._restart, self._began)
        if self.choice.is_several:
            try:
                check_name(topic)
            except FinkDaskError as error:
                transfer.error = error
        return transfer

    def begin(self, transfer: TopicTransfer) -> bool:
        """Take in a transfer that was found, and begin it; returns whether it has begun.

        Raises
        ------
        FinkDaskError
            If it can't be transferred, and no other topic is meant.
        """
        self._transfers[transfer.topic] = transfer
        with self.alone(transfer):
            if transfer.error is not None:
                raise transfer.error
            transfer.begin()
        return transfer.is_open

    def require_room(self, cores: int) -> None:
        """Estimate what there is to do, by so many processor cores, and refuse what the disk can't hold.

        Raises
        ------
        StorageError
            If it can't, and that is not forced.
        """
        found = self._estimates(cores)
        # Each may have room alone, so that none was looked at closely, and all together not.
        if len(found) > 1 and not has_room(found):
            found = self._estimates(cores, samples=True)
        require_room(found, self._settings)

    def _estimates(self, cores: int, samples: bool = False) -> list[Forecast]:
        found = []
        for transfer in self.open:
            with self.alone(transfer):
                found.append(transfer.estimate(cores, samples))
        return found

    def add_empty(self, topic: str) -> None:
        """Take in a topic that held nothing to the end."""
        if topic not in self._transfers:
            transfer = self._transfers[topic] = self.make(topic)
            transfer.be_empty()

    def add_gone(self, listed: Collection[str]) -> None:
        """Take in what matches a pattern, is not whole, and can't be completed, as Kafka has no such topic any more."""
        if not self.choice.patterns:
            return
        found = {ledger.outdir.name: ledger for ledger in datasets_in(self._settings.outdir)}
        for topic in self.choice.of(found):
            if topic in self.choice.names or topic in listed:
                continue
            transfer = self.make(topic)
            with suppress(FinkDaskError):
                missing = summarise(found[topic]).missing_offsets
                if not missing:
                    continue
                words = (
                    f"Kafka no longer has this topic, and the dataset lacks {counted(missing, 'planned offset')} of it"
                )
                transfer.error = BrokerError(words, topic)
                self.begin(transfer)

    @contextmanager
    def alone(self, transfer: TopicTransfer, *fatal: type[FinkDaskError]) -> Iterator[None]:
        """Let what fails in the block concern one topic only, where there are others.

        Parameters
        ----------
        transfer : TopicTransfer
            The topic's.
        *fatal : type
            Errors that concern all topics; that Kafka is away always does.

        Raises
        ------
        FinkDaskError
            If it is one of those, or no other topic is meant.
        """
        try:
            yield
        except FinkDaskError as error:
            if not self.choice.is_several or isinstance(error, (BrokerUnavailableError, *fatal)):
                raise
            transfer.error = error
            self._say_failure(transfer.topic, error)

    def failed(self, topic: str, error: FinkDaskError) -> None:
        """Take the failure of a range; those of other topics go on."""
        transfer = self._transfers[topic]
        transfer.failed_at(error)
        if self.choice.is_several and transfer.error is None:
            self._say_failure(topic, error)

    def is_over(self, topic: str) -> bool:
        """Tell whether the ranges of a topic that wait are wanted no more."""
        return self._transfers[topic].is_over

    def tell(self, observe: Observer) -> Observer:
        """Give all events to another observer from now on, and return it."""
        self._observe = observe
        return observe

    def observe(self, event: Event) -> None:
        """Take what ranges report, and pass it on."""
        if isinstance(event, RangeProgress | RangeCommitted | RangeFailed):
            self._transfers[event.topic].observe(event)
        else:
            self._observe(event)

    def check(self) -> None:
        """Look at the lease of one of the topics, of another one each time.

        Raises
        ------
        LedgerError
            If another job has taken over, and no other topic is meant.
        """
        transfers = self.open
        if transfers:
            self._checked += 1
            transfer = transfers[self._checked % len(transfers)]
            with self.alone(transfer):
                transfer.check()

    def each(self, do: Callable[[TopicTransfer], object]) -> None:
        """Do something for each that is open; what fails fails alone."""
        for transfer in self.open:
            with self.alone(transfer):
                do(transfer)

    def settle(self) -> None:
        """Settle all that have begun, whatever has failed; no attempt of this run may go on.

        Raises
        ------
        FinkDaskError
            If one can't be settled, and no other topic is meant.
        """
        for transfer in self._transfers.values():
            if transfer.error is None:
                with self.alone(transfer):
                    transfer.settle()
            else:
                with suppress(FinkDaskError):  # it has failed, and that is what counts
                    transfer.settle()

    def finish(self, inspector: Inspector) -> None:
        """Complete and sum up all of them.

        Raises
        ------
        FinkDaskError
            If one is not complete, and no other topic is meant.
        """
        for transfer in self._transfers.values():
            failure = transfer.range_failure
            if failure is not None and transfer.error is None:
                transfer.error = failure  # its ranges were said when they failed
                if not self.choice.is_several:
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
        """List all, in the order of their names."""
        return [transfer for _, transfer in sorted(self._transfers.items())]

    def _of(self, topic: str) -> Observer:
        """Have notes of several topics say which one they are about; who takes them may change, see `tell`."""

        def observe(event: Event) -> None:
            if isinstance(event, Note) and self.choice.is_several and not event.text.startswith(topic):
                event = replace(event, text=f"{topic}: {event.text}")
            self._observe(event)

        return observe

    def _say_failure(self, topic: str, error: FinkDaskError) -> None:
        self._of(topic)(Note(f"{error}; other topics go on", warning=True))


def settings_of(settings: TransferSettings, choice: TopicChoice, topic: str) -> TransferSettings:
    """Return what is asked for of one of the topics that are meant."""
    if not choice.is_several:
        return settings
    return replace(settings, topic=topic, outdir=settings.outdir / topic)
