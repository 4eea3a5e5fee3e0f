"""Say what a transfer would do, without doing it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fink_dask.errors import BrokerUnavailableError, FinkDaskError, StorageError
from fink_dask.kafka.inspect import Inspector, open_inspector
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.probe import UNKNOWN_LINE, LineSpeed, measure_line
from fink_dask.kafka.topics import TopicChoice, no_such_topics
from fink_dask.ledger.outdir import check_for_several, check_name, check_outdir, check_place, find_ledger
from fink_dask.ledger.records import Plan
from fink_dask.ledger.restart import check_restart
from fink_dask.ledger.summary import completeness_of
from fink_dask.planning.forecast import Machine, forecast, left_of, require_room, sample_rate, with_removal
from fink_dask.planning.matches import Matches, look_at_some
from fink_dask.planning.plan import planned_ends, removed_heads, still_there
from fink_dask.planning.prepare import check_heads, open_ranges, plan_next
from fink_dask.planning.schemas import inspect_topic
from fink_dask.planning.several import joining, mixed_surveys, settings_of, settings_of_all
from fink_dask.planning.waiting import wait_for_topics
from fink_dask.progress.events import Forecast, Note, Observer
from fink_dask.settings import TransferSettings


@dataclass(frozen=True)
class Outlook:
    """What a transfer would do; the answer of ``--dry-run``."""

    topic: str
    #: committed_ranges, committed_alerts: what is already in the dataset.
    committed_ranges: int
    committed_alerts: int
    #: Planned ranges that an earlier run left open.
    open_ranges: int
    #: What would be planned now.
    plan: Plan | None = field(repr=False)  # it may have a hundred thousand ranges
    #: Offsets that would be consumed.
    offsets: int
    #: Offsets that would be declared lost, as Kafka has removed them.
    removed: int
    #: The first offset to consume in each partition.
    resume_at: dict[int, int]
    #: The condition on the alerts that would be kept.
    where: str | None = None
    #: What would be done in another way than was asked for.
    remark: str | None = None
    #: Of how many of a few alerts it is true.
    matches: Matches | None = None
    #: An estimate of the work; None where there is none.
    forecast: Forecast | None = None
    #: What is known of the line to Kafka.
    line: LineSpeed = UNKNOWN_LINE


def preview(
    settings: TransferSettings,
    machine: Machine,
    restart: bool = False,
    line: LineSpeed | None = None,
    observe: Observer = lambda _: None,
) -> Outlook:
    """Find out what `run_transfer` would do, and write nothing.

    `settings`: what to transfer, where to, and how.
    `restart`: as if an existing dataset were moved aside first.
    `line`: what is known of the line; otherwise it is measured, which takes some seconds where it is slow.
    Raises FinkDaskError if it would be refused for anything but too little room, which `lack_of_room` tells.
    """
    choice = joining(TopicChoice((settings.topic,)), settings.outdir)
    with open_inspector(settings.kafka, window=settings.window) as inspector:
        wait_for_topics(settings, choice, inspector, observe)
        settings = settings if restart else settings_of_all(settings, choice)
        return _preview(settings_of(settings, choice, settings.topic), machine, inspector, restart, line)


def preview_each(
    settings: TransferSettings,
    machine: Machine,
    choice: TopicChoice,
    restart: bool = False,
    observe: Observer = lambda _: None,
) -> dict[str, Outlook | FinkDaskError]:
    """Find out what `run_topics` would do with each of several topics, or why it can't; see `preview`.

    Raises FinkDaskError if it would be refused as a whole for anything but too little room.
    """
    check_for_several(settings.outdir)
    settings = settings if restart else settings_of_all(settings, choice)
    found: dict[str, Outlook | FinkDaskError] = {}
    line: LineSpeed | None = None  # the same for all of them
    with open_inspector(settings.kafka, window=settings.window) as inspector:
        wait_for_topics(settings, choice, inspector, observe)
        topics = topics_now(choice, inspector)
        if words := mixed_surveys(settings.outdir, topics):
            observe(Note(words, warning=True))
        for topic in topics:
            try:
                check_name(topic)
                own = settings_of(settings, choice, topic)
                found[topic] = seen = _preview(own, machine, inspector, restart, line)
                if seen.line.bytes_per_s is not None:
                    line = seen.line
            except BrokerUnavailableError:
                raise
            except FinkDaskError as error:
                found[topic] = error
    return found


def lack_of_room(outlooks: Collection[Outlook], settings: TransferSettings) -> StorageError | None:
    """Return the words with which a transfer would be refused as the disk has too little room for it, or None.

    `outlooks`: those of all topics that would be transferred together.
    """
    if len(outlooks) > 1 and any(outlook.line.slower_than is not None for outlook in outlooks):
        return None  # how small their files are was not looked at, and the transfer itself does before it refuses
    try:
        require_room([outlook.forecast for outlook in outlooks if outlook.forecast is not None], settings)
    except StorageError as error:
        return error
    return None


def topics_now(choice: TopicChoice, inspector: Inspector) -> tuple[str, ...]:
    """List the topics that match and exist, and those that were named.

    Raises BrokerError if there are none, or the broker refuses or does not answer.
    """
    listed = inspector.topics()
    topics = choice.of(listed)
    if not topics:
        raise no_such_topics(choice.patterns, listed)
    return topics


def _preview(
    settings: TransferSettings, machine: Machine, inspector: Inspector, restart: bool, line: LineSpeed | None
) -> Outlook:
    ledger = find_ledger(settings.outdir)
    if restart:
        check_restart(ledger, settings.topic)
    else:
        check_outdir(ledger)
    check_place(ledger)
    target = inspect_topic(settings, inspector, ledger, fresh=restart)
    if target is None:
        return Outlook(settings.topic, 0, 0, 0, None, 0, 0, {})
    plans = [] if restart else ledger.plans()
    markers = ledger.markers(plans)
    draft = plan_next(settings, target, inspector, ledger, plans)
    plan = draft.plan
    if plan is not None:
        check_heads(settings, removed_heads(target.description.watermarks, planned_ends(plans)), lambda _: None)
    opened = open_ranges(plans, markers)
    left = [offset_range for _, offset_range in opened]
    todo = [*left, *(plan.ranges if plan else ())]
    offsets = still_there(todo, target.description.watermarks)
    resume_at: dict[int, int] = {}
    for offset_range in sorted(todo):
        resume_at.setdefault(offset_range.partition, offset_range.start)
    estimate, line, matches = None, line or UNKNOWN_LINE, None
    if offsets:
        if line is UNKNOWN_LINE:
            line = measure_line(inspector.admin, settings.topic, _longest(todo, target.description.watermarks))
        if target.identity.where is not None:
            there = [kept for offset_range in todo for kept in left_of(offset_range, target.description.watermarks)]
            matches = look_at_some(settings, target, there, sample_rate(settings, line))
        summary = completeness_of(plans, markers).summary
        samples = line.slower_than is None  # else it would take too long
        estimate = forecast(settings, target, summary, opened, plan, machine, samples, draft.sample, line)
        marks = target.description.watermarks
        estimate = with_removal(estimate, inspector.admin, settings.topic, todo, marks)
    return Outlook(
        topic=settings.topic,
        committed_ranges=len(markers),
        committed_alerts=sum(marker.transferred for marker in markers),
        open_ranges=len(left),
        plan=plan,
        offsets=offsets,
        removed=sum(map(len, todo)) - offsets,
        resume_at=resume_at,
        where=target.identity.where,
        remark=target.remark,
        matches=matches,
        forecast=estimate,
        line=line,
    )


def _longest(ranges: Iterable[OffsetRange], watermarks: Mapping[int, Watermarks]) -> OffsetRange:
    """Return the longest of the parts that Kafka still has of ranges."""
    return max((left for offset_range in ranges for left in left_of(offset_range, watermarks)), key=len)
