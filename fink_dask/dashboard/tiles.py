"""The words and numbers of the page, as HTML; everything from outside is escaped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from html import escape

from fink_dask.dashboard.board import Reported
from fink_dask.dashboard.reports import RunningReport, TopicReport
from fink_dask.ledger.lag import freshness_s
from fink_dask.nouns import counted
from fink_dask.transfers.profile import STAGES

#: Of a topic's name, or of why a transfer failed.
_MAX_CHARACTERS = 250
#: Of the parts of a bar, and of the stages.
COMMITTED, READING, NOT_READ = "#2b8a3e", "#74c0fc", "#e9ecef"
_COLOURS = ("#1864ab", "#4dabf7", "#2b8a3e", "#8ce99a", "#e67700", "#862e9c", "#868e96")

CSS = """
:host { font-family: system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; color: #212529; }
:host > div { width: 100%; }
h1 { font-size: 17px; margin: 6px 0 8px; font-weight: 600; overflow-wrap: anywhere; }
h2 { font-size: 13px; margin: 10px 0 6px; font-weight: 600; }
h2 span { font-weight: 400; margin-left: 14px; }
.state { font-size: 12px; font-weight: 600; border-radius: 9px; padding: 2px 9px; margin-left: 8px; color: white;
  background: #868e96; vertical-align: 2px; white-space: nowrap; }
.state.running, .state.done { background: #2b8a3e; }
.state.failed, .state.lost { background: #c92a2a; }
.words { color: #c92a2a; font-size: 13px; margin: 0 0 8px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(190px, 45%), 1fr)); gap: 8px; }
.tile { background: #f8f9fa; border: 1px solid #e9ecef; border-radius: 6px; padding: 7px 10px; }
.tile b { display: block; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { display: block; font-size: 11px; color: #5c636a; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.tile.bad b { color: #c92a2a; }
.stages { display: flex; height: 18px; border-radius: 4px; overflow: hidden; background: #e9ecef; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; margin-top: 5px; font-size: 12px;
  font-variant-numeric: tabular-nums; }
h2 i, .legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.ranges { columns: 400px; column-gap: 28px; font-size: 12px; font-variant-numeric: tabular-nums; }
.range { display: grid; grid-template-columns: 34px minmax(24px, 1fr) 70px 46px minmax(0, 146px) 58px; gap: 6px;
  align-items: center; height: 20px; break-inside: avoid; white-space: nowrap; }
.range > * { overflow: hidden; text-overflow: ellipsis; }
.range .number { text-align: right; }
.range .number + span:not(.number) { margin-left: 8px; }
.range .meter { background: #e9ecef; border-radius: 3px; height: 9px; }
.range .meter div { background: #74c0fc; height: 9px; }
.more { color: #5c636a; font-size: 12px; margin-top: 4px; }
"""


def nothing_yet() -> str:
    """Say that there is nothing to show."""
    return '<h1>fink-dask</h1><div class="more">no transfer has reported to this scheduler yet</div>'


def choice_label(known: Reported, topic: TopicReport) -> str:
    """Name a topic of a transfer, as plain text."""
    began = datetime.fromtimestamp(known.report.began_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    # Nothing that changes every second, as a visitor may be about to choose.
    return f"{topic.topic[:_MAX_CHARACTERS]}, begun {began} ({_state(known)[0]})"


def headline(known: Reported, topic: TopicReport) -> str:
    """Say how far a topic is, in numbers."""
    kind, words = _state(known)
    why = f'<div class="words">{_outside(known.report.words)}</div>' if known.report.words else ""
    tiles = "".join(
        f'<div class="tile {"bad" if is_bad else ""}" id="{name}"><b>{value}</b><span>{label}</span></div>'
        for name, value, label, is_bad in _tiles(known, topic)
    )
    title = (
        f'<h1><span id="topic">{_outside(topic.topic)}</span><span class="state {kind}" id="state">{words}</span></h1>'
    )
    return f'{title}{why}<div class="tiles">{tiles}</div>'


def _tiles(known: Reported, topic: TopicReport) -> list[tuple[str, str, str, bool]]:
    """List id, value, label, and whether it is bad news."""
    running = len(topic.running) + topic.more_running
    worst = max(topic.partitions, key=lambda item: item.lag, default=None)
    where = f"lag, most in partition {worst.partition}" if worst is not None and worst.lag else "lag"
    share = 100 * topic.committed / topic.offsets if topic.offsets else 100.0
    age_s = freshness_s(topic.newest_ms, time.time())
    now = known.is_running
    planned = f"ranges committed of {topic.ranges:,}" if not topic.is_followed else "ranges committed"
    return [
        # Rounded down: 100 % means all.
        ("share", f"{int(share * 10) / 10:g} %", f"of {counted(topic.offsets, 'offset')}", False),
        ("alerts", f"{topic.alerts:,}", "alerts in this run", False),
        *([("filtered", f"{topic.filtered:,}", "filtered", False)] if topic.filtered else []),
        ("alerts_per_second", f"{topic.alerts_per_second:,.0f}" if now else "\N{EN DASH}", "alerts/s", False),
        ("megabytes_per_second", f"{topic.bytes_per_second / 1e6:,.1f}" if now else "\N{EN DASH}", "MB/s", False),
        ("lag", f"{topic.lag:,}", where, False),
        ("age", "\N{EN DASH}" if age_s is None else _duration(age_s), "age of newest alert", False),
        (
            "left",
            _duration(topic.seconds_left) if now and topic.seconds_left is not None else "\N{EN DASH}",
            "time left",
            False,
        ),
        ("ranges", f"{topic.ranges_committed:,}", planned, False),
        ("ranges_running", f"{running if now else 0:,}", "ranges running", False),
        ("retries", f"{topic.retries:,}", "retries", topic.retries > 0),
        ("quarantined", f"{topic.quarantined:,}", "quarantined", topic.quarantined > 0),
        ("lost", f"{topic.lost:,}", "lost", topic.lost > 0),
    ]


def partitions_title(topic: TopicReport) -> str:
    """Explain the bars."""
    parts = ((COMMITTED, "committed"), (READING, "being read"), (NOT_READ, "not read"))
    legend = "".join(f'<span><i style="background: {colour}"></i>{words}</span>' for colour, words in parts)
    more = f"<span>and {counted(topic.more_partitions, 'more partition')}</span>" if topic.more_partitions else ""
    return f"<h2>partitions, in % of their offsets{legend}{more}</h2>"


def stage_shares(topic: TopicReport) -> str:
    """Show the share of each stage in the time of the committed ranges."""
    seconds = {stage: topic.stage_seconds.get(stage, 0.0) for stage in STAGES}
    whole = sum(seconds.values())
    shares = {stage: 100 * part / whole if whole else 0.0 for stage, part in seconds.items()}
    bar = "".join(
        f'<div style="width: {share:.2f}%; background: {colour}" title="{stage}"></div>'
        for (stage, share), colour in zip(shares.items(), _COLOURS, strict=True)
    )
    legend = "".join(
        f'<span id="stage-{stage}"><i style="background: {colour}"></i>{stage} {share:.0f} %</span>'
        for (stage, share), colour in zip(shares.items(), _COLOURS, strict=True)
    )
    title = "stages, in % of the time of committed ranges"
    return f'<h2>{title}</h2><div class="stages">{bar}</div><div class="legend">{legend}</div>'


def running_ranges(known: Reported, topic: TopicReport) -> str:
    """List the running ranges, and which worker has each."""
    if not known.is_running:
        return ""
    rows = "".join(map(_range_row, topic.running))
    more = f'<div class="more" id="more">and {topic.more_running:,} more</div>' if topic.more_running else ""
    if not rows:
        return '<h2>ranges running</h2><div class="more">none</div>'
    title = "ranges running: partition, progress, alerts, worker, time"
    return f'<h2>{title}</h2><div class="ranges">{rows}</div>{more}'


def _range_row(item: RunningReport) -> str:
    size = max(item.end - item.start, 1)
    share = min(100.0, 100 * (item.position - item.start) / size)
    worker = _outside(item.worker.removeprefix("tcp://").removeprefix("tls://")) or "\N{EN DASH}"
    where = f"partition {item.partition}, offsets {item.start:,} to {item.end - 1:,}, {worker}"
    return (
        f'<div class="range" title="{where}"><span class="number">{item.partition}</span>'
        f'<div class="meter"><div style="width: {share:.1f}%"></div></div>'
        f'<span class="number">{item.rows:,}</span><span class="number">{int(share)} %</span>'
        f'<span>{worker}</span><span class="number">{_duration(item.seconds)}</span></div>'
    )


def _state(known: Reported) -> tuple[str, str]:
    """Return the kind of a transfer's state, and how to say it."""
    if known.is_lost:
        return "lost", "its process disappeared"
    if known.silent_s is not None:
        return "silent", f"no report for {_duration(known.silent_s)}"
    state = known.report.state
    if state == "running":
        return state, f"running for {_duration(known.report.seconds)}"
    words = {"done": "everything is committed", "failed": "failed", "stopped": "stopped"}
    return (
        (state, f"{words[state]}, after {_duration(known.report.seconds)}") if state in words else ("lost", "unknown")
    )


def _outside(text: str) -> str:
    """Escape text from outside, in one line of bounded length."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return escape(printable[:_MAX_CHARACTERS])


def _duration(seconds: float) -> str:
    """Say a duration in its two largest units."""
    whole = int(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {small_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"
