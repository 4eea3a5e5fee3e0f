"""Look at Kafka as a transfer will: the credentials, whether it answers, what it holds, and its clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from fink_dask.doctor.machine import Check
from fink_dask.errors import BrokerError, FinkDaskError, SettingsError, option
from fink_dask.kafka.credentials import OF_BOTH, Credentials, find_credentials, is_open_to_others, need_a_survey
from fink_dask.kafka.inspect import open_inspector
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.overview import TopicOverview, look_at_topics
from fink_dask.kafka.probe import UNKNOWN_LINE, LineSpeed, measure_line
from fink_dask.settings import KafkaSettings, has_sasl
from fink_dask.units import lasting, pluralize

#: Seconds by which a clock may be wrong without harm.
_CLOCK_S = 60.0
#: Days before Kafka removes the first alerts within which a transfer should begin.
_SOON_DAYS = 1.0


def check_credentials(survey: str | None, is_needed: bool) -> Check:
    """Look for the credentials file; it may be absent, or name no servers, if they are known without it.

    `is_needed`: whether options and the environment alone did not say how to reach Kafka.
    """
    register = _register(survey)
    try:
        if is_needed and need_a_survey(survey):
            return Check("credentials", "warn", OF_BOTH, advice_on_servers(survey))
        found = find_credentials(survey)
        if found is not None:
            return _check_file(found, is_needed, register)
    except FinkDaskError as error:
        return Check("credentials", "fail", str(error), f"mend the file, or move it away and run: {register}")
    none = "no file in ~/.finkclient"
    if is_needed:
        return Check("credentials", "warn", none, register)
    return Check("credentials", "ok", f"{none}, and none is needed")


def _check_file(found: Credentials, is_needed: bool, register: str) -> Check:
    if found.secret and is_open_to_others(found.path):
        return Check("credentials", "warn", f"others can read the password in {found.path}", f"chmod 600 {found.path}")
    holds = [
        name
        for name, value in (
            ("servers", found.servers),
            ("user name", found.username),
            ("password", found.password),
            ("consumer group", found.group_id),
        )
        if value
    ]
    words = f"{found.path} has {', '.join(holds) or 'nothing of use'}"
    if is_needed and not found.servers:
        return Check("credentials", "warn", f"{words}, and no servers", f"{register} --bootstrap-servers HOST:PORT")
    return Check("credentials", "ok", words)


def advice_on_servers(survey: str | None) -> str:
    """Say what to type where nothing says where Kafka is."""
    if need_a_survey(survey):
        return "say --survey ztf or --survey lsst"
    return _register(survey)


def _register(survey: str | None) -> str:
    return f"fink-dask register --survey {survey or 'ztf'}"


@dataclass(frozen=True)
class KafkaChecks:
    """What was found on Kafka's side."""

    checks: tuple[Check, ...]
    #: What is known of the line.
    line: LineSpeed = UNKNOWN_LINE


def check_kafka(settings: KafkaSettings, topic: str | None) -> KafkaChecks:
    """Connect, look at the topic, or at all of Fink's, compare the clock with the newest alerts, and read some."""
    try:
        found = look_at_topics(settings).topics
        named = look_at_topics(settings, [topic]).topics[0] if topic is not None else None
    except SettingsError as error:
        return KafkaChecks((Check("topic", "fail", str(error), "fink-dask topics"),))
    except BrokerError as error:
        return KafkaChecks((Check("broker", "fail", str(error), _advice(error)),))
    line = _measure(settings, [named] if named is not None and named.offsets else found)
    return KafkaChecks((*_check_topics(settings, found, named), _check_line(line)), line)


def _advice(error: BrokerError) -> str:
    """Say what to check: the options that the error names, or how the way there is barred where it names none."""
    named = [option(name, "") for name in error.parameters]
    return f"check {' and '.join(named or [option('bootstrap_servers', ''), 'that no firewall blocks the way'])}"


def _measure(settings: KafkaSettings, topics: Sequence[TopicOverview]) -> LineSpeed:
    """Measure the line with the topic that holds most."""
    fullest = max(topics, key=lambda each: each.offsets, default=None)
    try:
        with open_inspector(settings) as inspector:
            if fullest is None or not fullest.offsets:
                return measure_line(inspector.admin)
            spans = inspector.describe(fullest.topic).spans
            ranges = [OffsetRange(partition, start, end) for partition, (start, end) in spans.items()]
            return measure_line(inspector.admin, fullest.topic, max(ranges, key=len, default=None))
    except BrokerError:
        return UNKNOWN_LINE


def _check_line(line: LineSpeed) -> Check:
    figures = {"round_trip_s": line.round_trip_s, "line_bytes_per_s": line.bytes_per_s}
    if line.round_trip_s is None:
        return Check("line", "warn", line.words, "try again: Kafka answered before, and then no more", figures)
    words = line.words
    if line.bytes_per_s is line.slower_than is None:
        words += "; the rate is not known, as there was too little to read"
    return Check("line", "ok", words, figures=figures)


def _check_topics(
    settings: KafkaSettings, found: Sequence[TopicOverview], named: TopicOverview | None
) -> Iterator[Check]:
    servers = settings.bootstrap_servers
    who = f" and accepts the password of {settings.security.username}" if has_sasl(settings.security.protocol) else ""
    words = f"{servers} answers ({settings.security.protocol}){who}; {pluralize(len(found), 'topic')} of Fink"
    yield Check("broker", "ok", words)
    if named is not None:
        yield _check_topic(named)
    yield _check_clock([*found, *([named] if named is not None else [])])


def _check_topic(topic: TopicOverview) -> Check:
    if topic.error is not None:
        return Check("topic", "fail", f"{topic.topic}: {topic.error}", "fink-dask topics")
    words = f"{topic.topic} holds {pluralize(topic.offsets, 'alert')} in {pluralize(topic.partitions, 'partition')}"
    if not topic.offsets:
        return Check("topic", "warn", words, "fink-dask topics shows which ones hold any; --follow waits for them")
    if topic.removal_ms is None:
        return Check("topic", "ok", words)
    left_s = max(0.0, topic.removal_ms / 1000 - time.time())
    days = left_s / 86_400
    words += f"; Kafka may begin to remove them {f'in {lasting(left_s)}' if left_s >= 1 else 'now'}"
    return Check("topic", "warn" if days < _SOON_DAYS else "ok", words, "transfer it now" if days < _SOON_DAYS else "")


def _check_clock(topics: list[TopicOverview]) -> Check:
    """Compare the clock with the newest alert of each partition, which is all that Kafka shows of its time.

    A single alert ahead of the clock has a wrong timestamp; if this machine's clock were slow, there would be more.
    """
    newest = {topic.topic: topic.newest_each_ms for topic in topics}
    now_ms = time.time() * 1000
    ahead = {topic: [at - now_ms for at in each if at - now_ms > 1000 * _CLOCK_S] for topic, each in newest.items()}
    found = [by_ms / 1000 for each in ahead.values() for by_ms in each]
    partitions = sum(map(len, newest.values()))
    if not partitions:
        return Check("clock", "ok", "not known: Kafka holds no alert to compare it with")
    if not found:
        return Check("clock", "ok", "not behind the newest alerts; Kafka can't show whether it is ahead")
    if len(found) == 1 < partitions:
        (topic,) = (topic for topic, each in ahead.items() if each)
        words = f"an alert of {topic} is {found[0]:,.0f} s in the future, alone in {pluralize(partitions, 'partition')}"
        return Check("clock", "ok", f"{words}: its timestamp is wrong, not this machine's clock")
    words = f"the newest alerts of {len(found):,} of {pluralize(partitions, 'partition')} are in the future, by about "
    words += f"{median(found):,.0f} s: this machine's clock is slow, or the producer's is fast"
    return Check("clock", "warn", words, "timedatectl status")
