"""The transfer of one topic into its dataset: its ledger, its lease, its plans, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from fink_dask.dataset.presence import check_files
from fink_dask.errors import (
    BrokerError,
    BrokerUnavailableError,
    FinkDaskError,
    LedgerError,
    SettingsError,
    StorageError,
    TransferError,
    parameter,
)
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.inspect import Inspector, Sample, TopicDescription, is_other_topic
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.overview import commit_group_offsets
from fink_dask.kafka.probe import UNKNOWN_LINE, LineSpeed, line_of
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import Lease, hold_lease
from fink_dask.ledger.ledger import KnownMarkers, Ledger, collecting_no_garbage, latest
from fink_dask.ledger.outdir import check_outdir, create_ledger, find_ledger, remove_if_unused
from fink_dask.ledger.records import Marker, Plan
from fink_dask.ledger.restart import (
    check_restart,
    complete_move,
    delete_old_dataset,
    is_begun,
    old_datasets,
    set_aside,
)
from fink_dask.ledger.summary import Summary, completeness_of, forget_lag, read_arrival, summarise, write_arrival
from fink_dask.planning.forecast import Machine, forecast, left_of, with_removal
from fink_dask.planning.plan import Generations, known_topic_id, planned_ends, removed_heads, spans_to_plan
from fink_dask.planning.prepare import (
    Draft,
    check_heads,
    freeze_plan,
    make_work,
    offsets_by_partition,
    open_ranges,
    plan_next,
)
from fink_dask.planning.schemas import Target, inspect_topic
from fink_dask.progress.events import Forecast, Note, Observer, TransferStarted
from fink_dask.progress.profile import Profile, profile_of
from fink_dask.progress.tally import Progress
from fink_dask.ranges.memory import MemoryShare
from fink_dask.ranges.work import Work, failure_of
from fink_dask.settings import TransferSettings
from fink_dask.units import pluralize

#: How many schemas that don't fit are reported; there may be as many as records.
_SHOWN_MISFITS = 3
#: Seconds for which the rate of a run tells that of the next one: later, it may be another line.
_SAME_LINE_S = 86_400.0


def finish(
    settings: TransferSettings,
    observe: Observer,
    ledger: Ledger,
    inspector: Inspector,
    lease: Lease,
    partitions: Sequence[int],
    known: KnownMarkers | None = None,
) -> Summary:
    """Complete a transfer, or say why it is not complete; `partitions` are those that the topic had at first.

    `known`: has the markers that were read before.
    Returns: what the dataset holds.
    Raises LedgerError if the topic was made anew meanwhile, planned offsets are not committed, files are gone, or
    another job has taken over.
    """
    plans = ledger.plans()
    _look_again(settings, observe, inspector, plans, partitions)
    markers = ledger.markers(plans, known=known)
    completeness = completeness_of(plans, markers)
    if completeness.missing:
        raise LedgerError(f"not committed: {pluralize(completeness.missing_offsets, 'planned offset')}", settings.topic)
    check_files(ledger, plans, markers)
    lease.check()
    if settings.group_id is not None:
        try:
            commit_group_offsets(settings.kafka, settings.topic, settings.group_id, planned_ends(plans))
        except BrokerError as error:
            observe(Note(f"the group's offsets were not committed: {error}", warning=True))
    lease.check()
    retire_old_datasets(ledger, completeness.summary, observe)
    return completeness.summary


def retire_old_datasets(ledger: Ledger, summary: Summary, observe: Observer) -> None:
    """Delete what was moved aside to begin again, where the new dataset is complete and holds no less."""
    for old in old_datasets(ledger):
        alerts = old.alerts
        if alerts is not None and alerts <= summary.transferred and summary.state == "complete":
            delete_old_dataset(old)
        else:
            # Kafka may no longer have what the old one holds.
            held = "an unknown number of alerts" if alerts is None else pluralize(alerts, "alert")
            words = f"the old dataset is kept in {old.path}: it holds {held}, the new one "
            words += f"{summary.transferred:,} and is {summary.state}; delete it once you don't need it"
            observe(Note(words, warning=True))


def _look_again(
    settings: TransferSettings,
    observe: Observer,
    inspector: Inspector,
    plans: Sequence[Plan],
    partitions: Sequence[int],
) -> None:
    """Find out whether the topic is still the one that was planned, and whether more has arrived."""
    try:
        now = inspector.describe(settings.topic, sorted({*partitions, *planned_ends(plans)}))
    except BrokerUnavailableError as error:
        observe(Note(f"can't tell whether more has arrived: {error}", warning=True))
        return
    if is_other_topic(known_topic_id(plans), now.topic_id):
        raise LedgerError(
            "the topic was deleted and made again during the transfer; what is committed stays as it is, and the new "
            f"topic needs another {parameter('outdir')}",
            settings.topic,
        )
    spans = spans_to_plan(now.watermarks, planned_ends(plans), settings.topic)
    grown = sum(end - start for start, end in spans.values())
    if grown and settings.limit is None:
        words = f"the topic is still being filled: {pluralize(grown, 'record')} came after "
        if settings.follow is None:
            words += "the plan was made; run the same command again to fetch them (--follow waits for them)"
        else:
            words += "the end of following that you asked for; the same command goes on from there"
        observe(Note(words, warning=True))


class TopicTransfer:
    """What a run does with one topic, step by step: find, begin, plan, freeze, then settle and finish; and end."""

    def __init__(
        self,
        settings: TransferSettings,
        observe: Observer,
        progress: Progress,
        restart: bool = False,
        joins: bool = False,
    ) -> None:
        # What to transfer, where to, and how.
        self.settings = settings
        self.topic = settings.topic
        self.ledger = find_ledger(settings.outdir, joins)
        # Takes what it says.
        self.observe = observe
        self._began = progress.began
        #: What the run has done with it.
        self.tally = progress.of(self.topic)
        #: Where its time went.
        self.profile = profile_of(self.tally, self._began)
        #: The generations of the plan, but those that are made while the topic is followed.
        self.plans: list[Plan] = []
        #: How it ended; ``failed`` until it has.
        self.summary = Summary(self.topic, "failed")
        self.error: FinkDaskError | None = None
        # Move an existing dataset aside first.
        self._restart = restart
        self._target: Target | None = None
        self._lease: Lease | None = None
        self._before = Summary(self.topic, "interrupted")
        #: What the dataset held once that was settled which an earlier run had left.
        self.begun = completeness_of((), ())
        # The markers that were read, until the work is handed out.
        self._known: KnownMarkers = {}
        #: How fast records came in the last run, in bytes a second; 0 where that is not known.
        self._rate_before = 0.0
        self._sample: Sample | None = None
        self._draft = Draft()
        #: What is planned and not done yet, once it is estimated.
        self.forecast: Forecast | None = None
        self._opened: list[tuple[Plan, OffsetRange]] = []
        self._range_failures: list[FinkDaskError] = []
        self._kept = 0.0
        self._stack = ExitStack()

    @property
    def target(self) -> Target:
        """The topic, once it is found."""
        assert self._target is not None
        return self._target

    @property
    def is_open(self) -> bool:
        """Whether it has begun, and nothing of it has failed."""
        return self._lease is not None and self.error is None and not self._range_failures

    @property
    def is_over(self) -> bool:
        """Whether it has failed in such a way that none of its ranges is wanted any more."""
        # A column with too many values in one range has them in others as well.
        return self.error is not None or any(isinstance(error, SettingsError) for error in self._range_failures)

    @property
    def range_failure(self) -> TransferError | None:
        """The failure of its ranges, if any has failed."""
        return failure_of(self._range_failures, self.tally.committed) if self._range_failures else None

    def find(self, inspector: Inspector, description: TopicDescription | None = None) -> bool:
        """Find out whether the topic can be transferred as asked for; write nothing new.

        Returns False for a topic that holds nothing, where there is nothing to continue.
        """
        complete_move(self.ledger)
        if self._restart:
            check_restart(self.ledger, self.topic)
        else:
            check_outdir(self.ledger)
        self._target = inspect_topic(self.settings, inspector, self.ledger, self._restart, description)
        if self._target is not None and self._target.remark is not None:
            self.observe(Note(self._target.remark))
        for misfit in () if self._target is None else self._target.misfits[:_SHOWN_MISFITS]:
            words = (
                f"records of this topic go to the quarantine: {misfit.reason}; --dump-schemas writes all schemas, and "
            )
            words += "--schema FILE with another --outdir makes a dataset of one of them"
            self.observe(Note(words, warning=True))
        return self._target is not None

    def begin(self) -> None:
        """Make the ledger where there is none, take the lease, and settle what an earlier run left.

        Raises FinkDaskError if another job works on it, or the dataset is not what the ledger says.
        """
        if self._restart and is_begun(self.ledger):
            with hold_lease(self.ledger):
                aside = set_aside(self.ledger)
            self.ledger = latest(self.ledger)
            self.observe(Note(f"the old dataset is kept in {aside} until the new one is complete"))
        made = create_ledger(self.ledger)
        self._stack.callback(remove_if_unused, self.ledger, made)
        self._lease = self._stack.enter_context(hold_lease(self.ledger))
        with collecting_no_garbage():
            self._settle_before()

    def _settle_before(self) -> None:
        """Settle what an earlier run left."""
        self.plans = self.ledger.plans()
        markers = self._markers()
        self.begun = completeness_of(self.plans, markers)
        self._before = self.begun.summary
        arrival = read_arrival(self.ledger, _SAME_LINE_S)
        # What kept to a limit says nothing of the line.
        if arrival is not None and not arrival.is_cut and arrival.limit_rate is None:
            self._rate_before = arrival.bytes_per_second
        rolled = roll_forward(self.ledger, self.plans)
        if rolled:
            self.observe(Note(f"now in the dataset: {pluralize(rolled, 'range')} that an earlier run had committed"))
            markers = self._markers()
            self.begun = completeness_of(self.plans, markers)
        check_files(self.ledger, self.plans, markers)
        self._opened = open_ranges(self.plans, markers)
        if self.plans and self.settings.follow is None:
            with suppress(StorageError):  # it only says that an earlier run has followed the topic
                forget_lag(self.ledger)

    def _markers(self) -> list[Marker]:
        """Read the markers, but none that was read since it began."""
        return self.ledger.markers(self.plans, known=self._known)

    def plan(self, inspector: Inspector) -> int:
        """Plan what no generation holds yet, without freezing it; return how many ranges are to be transferred."""
        self._draft = plan_next(self.settings, self.target, inspector, self.ledger, self.plans, self._known)
        self._opened = open_ranges(self.plans, self._markers())
        return len(self._opened) + (len(self._draft.plan.ranges) if self._draft.plan else 0)

    def estimate(self, machine: Machine, samples: bool, admin: Admin) -> Forecast:
        """Estimate the work that is planned; see `forecast` and `with_removal`."""
        plan, sample = self._draft.plan, self._draft.sample
        line = UNKNOWN_LINE if sample is None else line_of(sample)
        if self._rate_before > (line.bytes_per_s or 0.0):
            line = LineSpeed(bytes_per_s=self._rate_before, is_of_before=True)
        found = forecast(self.settings, self.target, self._before, self._opened, plan, machine, samples, sample, line)
        ranges = [*(offset_range for _, offset_range in self._opened), *(plan.ranges if plan is not None else ())]
        self.forecast = with_removal(found, admin, self.topic, ranges, self.target.description.watermarks)
        return self.forecast

    def freeze(self) -> None:
        """Freeze what was planned, if anything was."""
        if self._draft.plan is None:
            return
        heads = removed_heads(self.target.description.watermarks, planned_ends(self.plans))
        check_heads(self.settings, heads, self.observe)
        plan = freeze_plan(self.ledger, self.target, self._draft.plan, Generations(self.plans), self.observe)
        self.plans.append(plan)
        self._sample = self._draft.sample
        self._opened += [(plan, offset_range) for offset_range in plan.ranges]
        self._draft = Draft()

    def begin_work(self, memory: MemoryShare, dashboard: str | None) -> list[Work]:
        """Announce what will be transferred, and return it."""
        self._known.clear()  # of 100,000 ranges they would be 200 MB
        planned = [offset_range for plan in self.plans for offset_range in plan.ranges]
        work = make_work(self.settings, self.target, self.ledger, self._opened, memory, self._sample)
        offsets = sum(map(len, planned))
        self.observe(
            TransferStarted(
                topic=self.topic,
                ranges=len(planned),
                ranges_committed=len(planned) - len(work),
                offsets=offsets,
                offsets_committed=offsets - sum(len(item.range) for item in work),
                dashboard=dashboard,
                partitions=offsets_by_partition(planned, work),
                forecast=self.forecast,
                reconnect_timeout_s=self.settings.kafka.reconnect_timeout_s,
                limit_rate=self.settings.kafka.limit_rate,
            )
        )
        return work

    def failed_at(self, error: FinkDaskError) -> None:
        """Take note of the failure of a range; the others of this topic go on."""
        self._range_failures.append(error)

    def check(self) -> None:
        """Raise a LedgerError if another job has taken over; otherwise note in the ledger what has arrived."""
        if self._lease is None or self.error is not None:
            return
        self._lease.check()
        now = time.monotonic()
        if now - self._kept >= self.ledger.store.note_s:
            self._kept = now
            with suppress(StorageError):  # nothing depends on it, and what depends on the disk says when it is full
                write_arrival(self.ledger, self.tally.arrival)

    def settle(self) -> None:
        """Publish what was committed, and remove whatever else was staged; no attempt of this run may go on.

        Raises FinkDaskError if another job has taken over, or the file system refuses.
        """
        # What a killed attempt has committed is published. Should one still run, on somebody else's scheduler, it
        # finds no directory to commit from; on an object store it commits, and the next run publishes that.
        if self._lease is not None:
            self._lease.check()
            roll_forward(self.ledger, self.ledger.plans())

    def finish(self, inspector: Inspector) -> None:
        """Complete it, and sum it up.

        Raises FinkDaskError if it is not complete.
        """
        assert self._lease is not None
        known = [*self.target.description.watermarks]
        self._sum_up(finish(self.settings, self.observe, self.ledger, inspector, self._lease, known, self._known))
        if self.summary.filtered and not self.summary.transferred:
            self._say_that_none_matches()
        if self.profile.ranges:
            self._keep(self.profile)

    def _say_that_none_matches(self) -> None:
        """Say what the condition asks for and what is there: an empty dataset is rarely what was meant."""
        from fink_dask.planning.matches import look_at_some  # here, as it loads the functions of Arrow

        words = f"{self.topic}: {self.target.identity.where} is true of no alert"
        with suppress(FinkDaskError):  # what Kafka has is only looked at again
            ranges = [
                left
                for plan in self.ledger.plans()
                for offset_range in plan.ranges
                for left in left_of(offset_range, self.target.description.watermarks)
            ]
            rate = self.profile.received_bytes / max(self.profile.seconds, 1e-3)
            seen = look_at_some(self.settings, self.target, ranges, rate or None)
            if seen is not None and not seen.matching:
                words += f": {seen.words}"
        self.observe(Note(words, warning=True))

    def be_empty(self) -> None:
        """Sum up a topic that held nothing."""
        self.profile = profile_of(self.tally, self._began)
        self.summary = Summary(self.topic, "complete", run_seconds=self.profile.seconds)

    def give_up(self) -> None:
        """Sum up what there is of a failed transfer."""
        with suppress(FinkDaskError):
            if self.ledger.exists():
                self._sum_up(summarise(self.ledger).summary)
        self.summary = replace(self.summary, state="failed")

    def _sum_up(self, summary: Summary) -> None:
        """Take note of what the dataset holds, and of what this run added."""
        added = summary.transferred - self._before.transferred if self._lease is not None else 0
        self.profile = profile_of(self.tally, self._began)
        self.summary = replace(
            summary,
            topic=self.topic,
            run_alerts=added,
            run_received_bytes=self.profile.received_bytes,
            run_wasted_bytes=self.profile.wasted_bytes,
            run_seconds=self.profile.seconds,
        )

    def end(self) -> None:
        """Give the lease back."""
        self._stack.close()

    def _keep(self, profile: Profile) -> None:
        try:
            self.ledger.add_profile(profile.to_json())
        except StorageError as error:  # the dataset is complete without it
            self.observe(Note(f"the profile of this run could not be kept: {error}", warning=True))
