"""A whole transfer, from a topic's name to a dataset: inspect, plan, run, finish."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.local import Cluster, LocalWorkers, usable_cores
from fink_dask.cluster.readiness import Needs
from fink_dask.dashboard.plugin import page_link
from fink_dask.dashboard.reporter import Reporter
from fink_dask.errors import FinkDaskError, SettingsError
from fink_dask.following.followers import Followers, Watch, look_first, wait_for_first
from fink_dask.kafka.inspect import Inspector, open_inspector
from fink_dask.kafka.topics import TopicChoice, no_such_topics
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import check_for_several, find_ledger, total_of
from fink_dask.ledger.summary import Summary, absent_words
from fink_dask.planning.ahead import FirstLook, is_resumed
from fink_dask.planning.forecast import Machine
from fink_dask.planning.predicted import is_predicted
from fink_dask.planning.several import Finder, Topics, joining, settings_of_all
from fink_dask.planning.topic import TopicTransfer
from fink_dask.planning.waiting import wait_for_topics
from fink_dask.progress.events import Doing, Note
from fink_dask.progress.profile import Profile, profile_of
from fink_dask.progress.tally import Progress
from fink_dask.ranges.work import Work
from fink_dask.running.scheduling import run_ranges
from fink_dask.settings import FollowSettings, TransferSettings
from fink_dask.units import pluralize


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    #: What the dataset holds, and what the run added.
    summary: Summary
    #: Where its time went.
    profile: Profile
    #: The dataset: that of the settings, or in it, where others are.
    outdir: Path


@dataclass(frozen=True)
class TopicOutcome:
    """How a run ended for one of several topics."""

    #: What its dataset holds, and what the run added.
    summary: Summary
    ledger: Ledger
    error: FinkDaskError | None = None


@dataclass(frozen=True)
class TopicsOutcome:
    """How a run ended for all its topics."""

    #: Each of them, by name.
    topics: tuple[TopicOutcome, ...]
    #: Where the run's time went.
    profile: Profile
    #: Where predictions were asked for: the datasets of the two topics that the one was made of.
    parts: tuple[TopicOutcome, ...] = ()


def run_transfer(
    settings: TransferSettings,
    progress: Progress,
    chosen: ClusterChoice,
    restart: bool = False,
) -> Outcome:
    """Transfer a topic, or continue a transfer.

    `settings`: what to transfer, where to, and how.
    Returns: what the dataset holds now, and what this run took.
    Raises FinkDaskError if it is refused or can't be finished; what is committed stays committed.
    """
    choice = joining(TopicChoice((settings.topic,)), settings.outdir)
    found = run_topics(choice, settings, progress, chosen, restart)
    (only,) = found.topics
    return Outcome(only.summary, found.profile, only.ledger.outdir)


def run_topics(
    choice: TopicChoice,
    settings: TransferSettings,
    progress: Progress,
    chosen: ClusterChoice,
    restart: bool = False,
    look: FirstLook | None = None,
) -> TopicsOutcome:
    """Transfer topics together, or continue a transfer of theirs.

    `choice`: which topics. Where there are, or may be, several, each has a dataset ``OUTDIR/TOPIC``.
    `settings`: what to transfer, where to, and how; the topic in it does not matter.
    `look`: what was asked of Kafka while the program loaded. Where something was, this process is nobody else's, and
    what is small may run in it.
    Returns: what the datasets hold now, what this run took, and which topics failed.
    Raises FinkDaskError if nothing could be transferred, or a failure concerns all topics, or there is only one.
    """
    if not is_predicted(choice):
        return _run_topics(choice, settings, progress, chosen, restart, look)
    found: list[TopicsOutcome] = []

    def transfer(topics: TopicChoice, to: TransferSettings) -> None:
        found.append(_run_topics(topics, to, progress, chosen, restart, look))
        for topic in found[0].topics:
            if topic.error is not None:
                raise topic.error

    settings = replace(settings, topic=choice.names[0])
    from fink_dask.running.predicted import transfer_predictions  # here, as joining loads pandas

    summary = transfer_predictions(settings, progress, restart, transfer)
    (parts,) = found
    return TopicsOutcome((TopicOutcome(summary, find_ledger(settings.outdir)),), parts.profile, parts.topics)


def _run_topics(
    choice: TopicChoice,
    settings: TransferSettings,
    progress: Progress,
    chosen: ClusterChoice,
    restart: bool,
    look: FirstLook | None,
) -> TopicsOutcome:
    # Nothing was waited for until now; but what workers need is loaded at the same time, where they are here.
    loaded_s = (time.monotonic() - progress.began) / (2 if chosen.is_here else 1)
    if choice.is_several:
        check_for_several(settings.outdir)
    _say_what_is_there(settings, choice, progress)
    settings = settings if restart else settings_of_all(settings, choice)
    topics = Topics(choice, settings, progress, restart, Machine(cores_of(settings, chosen), loaded_s))
    try:
        what = "topics" if choice.is_several else "topic"
        progress(Doing(f"connecting to Kafka, and looking at the {what}"))
        with (
            _local_workers(settings, chosen, choice) as workers,
            _inspector(settings, choice, restart, look) as inspector,
        ):
            workers.is_refused = lambda: inspector.is_refused
            wait_for_topics(settings, choice, inspector, progress)
            if settings.follow is None and chosen.is_here:  # else it may be hours until there is anything to do
                if look is None:
                    workers.start_soon()
                else:
                    look.when_large(workers.start_soon)
                    if look.may_be_small:
                        workers.connect_here()
            finder = Finder(choice, topics.make, is_patient=settings.follow is not None)
            _begin(topics, finder, inspector, settings.follow)
            if topics.open:
                _transfer(settings, topics, finder, inspector, chosen, workers, may_be_here=look is not None)
            finder.give_up()
            for transfer in finder.take():
                topics.begin(transfer)
            for topic in finder.empty:
                progress(Note(f"{topic} {_is_empty(settings)}: there is nothing to transfer, and nothing is written"))
                topics.add_empty(topic)
            topics.finish(inspector)
            if not topics.results():
                raise no_such_topics(finder.unmatched, finder.listed)
        # For one topic, the profile that its ledger keeps.
        profile = profile_of(progress.whole, progress.began) if choice.is_several else topics.results()[0].profile
    finally:
        topics.end()
    found = tuple(TopicOutcome(each.summary, each.ledger, each.error) for each in topics.results())
    return TopicsOutcome(found, profile)


def _say_what_is_there(settings: TransferSettings, choice: TopicChoice, progress: Progress) -> None:
    """Say what the datasets that are in the directory mean for a topic that joins them, or that a pattern matches."""
    if choice.joins and not find_ledger(settings.outdir / choice.names[0]).exists():
        progress(Note(f"{settings.outdir} holds the datasets of other topics, which this one joins"))
    for topic, path in choice.left_out.items():
        progress(Note(f"{topic} is left out, as {path} has it: give that as --outdir to go on with it"))


def _is_empty(settings: TransferSettings) -> str:
    """Say that a topic holds nothing that is wanted."""
    return "is empty" if settings.since is settings.until is None else "holds nothing of that time"


def _inspector(
    settings: TransferSettings, choice: TopicChoice, restart: bool, look: FirstLook | None
) -> AbstractContextManager[Inspector]:
    if look is not None:
        return nullcontext(look.inspector)
    resumed = is_resumed(settings.outdir, choice, restart)
    return open_inspector(settings.kafka, choice.names, resumed, settings.window)


def _begin(topics: Topics, finder: Finder, inspector: Inspector, follow: FollowSettings | None) -> None:
    """Find the topics, and begin with those that hold something; when following, wait for one that does."""
    if follow is None:
        finder.look(inspector)
    else:
        look_first(topics, finder, inspector)
    if finder.unmatched and follow is None:
        error = no_such_topics(finder.unmatched, finder.listed)
        if not topics.choice.of(finder.listed):
            raise error
        topics.progress(Note(str(error), warning=True))
    found = finder.take()
    refusals = [transfer.error for transfer in found if isinstance(transfer.error, SettingsError)]
    if found and len(refusals) == len(found):
        raise refusals[0]  # what was asked for, such as a column, is wrong for all of them
    topics.add_gone(finder.listed)
    for transfer in found:
        topics.begin(transfer)
    if follow is None:
        return
    for pattern in finder.unmatched:
        topics.progress(Note(f"no topic matches {pattern} yet: waiting for one"))
    for topic in finder.empty:
        topics.progress(Note(f"{topic} {_is_empty(topics.settings)}: waiting for its first alert"))
    if not topics.open and (finder.empty or finder.lacking or topics.choice.patterns):
        wait_for_first(topics, follow, finder, inspector)


def _transfer(
    settings: TransferSettings,
    topics: Topics,
    finder: Finder,
    inspector: Inspector,
    chosen: ClusterChoice,
    workers: LocalWorkers,
    may_be_here: bool,
) -> None:
    """Continue the plans and make the next ones, until there is nothing left to plan."""
    observe = topics.progress
    try:
        with ExitStack() as stack:
            cluster: Cluster | None = None

            def check() -> None:
                observe.pass_on()
                topics.check()
                if cluster is not None:
                    cluster.check()

            while True:
                ranges = 0
                observe(Doing("planning what to read"))
                for transfer in topics.open:
                    with topics.alone(transfer):
                        ranges += transfer.plan(inspector)
                if not topics.open:
                    return
                if not ranges and settings.follow is None:
                    if cluster is None:
                        observe(Note(_nothing_new(settings, topics)))
                    return
                if cluster is None:
                    # Before the plan is frozen: a transfer that can't run leaves nothing to continue.
                    topics.require_room(inspector.admin)
                    if settings.follow is not None:  # there will be more
                        ranges = max(ranges, settings.nconsumers)
                    is_here = may_be_here and topics.is_small
                    cluster = stack.enter_context(
                        _connect(settings, observe, chosen, workers, topics.open[0], ranges, is_here)
                    )
                    # A scheduler that is started here ends with the transfer, and its page with it.
                    outlived = chosen.scheduler is not None
                    stack.enter_context(Reporter(cluster.client, observe, outlived, topics.failure))
                topics.each(TopicTransfer.freeze)
                work = _announce(topics, cluster)
                if settings.follow is not None:
                    _follow(settings, settings.follow, topics, finder, inspector, work, cluster, check)
                    return
                run_ranges(
                    cluster,
                    work,
                    settings.nconsumers,
                    observe,
                    check,
                    topics=topics,
                    reconnect_timeout_s=settings.kafka.reconnect_timeout_s,
                )
                if settings.limit is None:
                    return
    finally:
        topics.settle()


def _follow(
    settings: TransferSettings,
    follow: FollowSettings,
    topics: Topics,
    finder: Finder,
    inspector: Inspector,
    work: list[Work],
    cluster: Cluster,
    check: Callable[[], None],
) -> None:
    """Transfer what is planned, and what arrives, until the end."""
    with Watch(inspector, finder) as watch:
        followers = Followers(topics, follow, watch, finder, cluster.memory, settings.nconsumers)
        run_ranges(
            cluster,
            work,
            settings.nconsumers,
            topics.progress,
            check,
            followers.more,
            topics,
            settings.kafka.reconnect_timeout_s,
        )


def cores_of(settings: TransferSettings, chosen: ClusterChoice) -> int:
    """Count the cores that will share the work, as far as that is known beforehand."""
    return min(settings.nconsumers, usable_cores()) if chosen.is_here else settings.nconsumers


def _nothing_new(settings: TransferSettings, topics: Topics) -> str:
    """Say that all there is came before, and what of it is not in the dataset any more, or never was."""
    of, there = ("topics", "datasets") if topics.choice.is_several else ("topic", "dataset")
    absent = absent_words(total_of([transfer.begun.summary for transfer in topics.open]))
    if settings.limit is not None:
        got = "got" if absent else "holds"
        words = f"the dataset {got} all there is, or the limit of {pluralize(settings.limit, 'alert')}"
    else:
        words = f"every offset of the {of} {'came before' if absent else f'is already in the {there}'}"
    return f"nothing new: {words}{absent}"


def _connect(
    settings: TransferSettings,
    progress: Progress,
    chosen: ClusterChoice,
    workers: LocalWorkers,
    first: TopicTransfer,
    ranges: int,
    is_here: bool,
) -> AbstractContextManager[Cluster]:
    if chosen.is_here:
        progress(Doing("getting ready" if is_here else "starting workers"))
        return workers.cluster(ranges, is_here)
    # Of several topics, the one in the settings may be a pattern.
    needs = Needs(first.ledger, settings.kafka, first.topic)
    return chosen.connect(needs, settings.nconsumers, ranges, settings.memory_limit, progress)


def _local_workers(settings: TransferSettings, chosen: ClusterChoice, choice: TopicChoice) -> LocalWorkers:
    return LocalWorkers(
        settings.nconsumers, chosen.dashboard_address, settings.memory_limit, settings.kafka, choice.names
    )


def _announce(topics: Topics, cluster: Cluster) -> list[Work]:
    """Announce the work of each topic, and return it."""
    dashboard = page_link(cluster.client)
    work: list[Work] = []
    for transfer in topics.open:
        with topics.alone(transfer):
            work += transfer.begin_work(cluster.memory, dashboard)
    return work
