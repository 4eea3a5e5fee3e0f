"""The words and numbers of the page, as HTML; everything from outside is escaped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from html import escape

from fink_dask.dashboard.board import Reported
from fink_dask.dashboard.reports import RunningReport, TopicReport
from fink_dask.ledger.progress import Phase, freshness_s
from fink_dask.transfers.profile import STAGES
from fink_dask.units import amount, counted, lasting

#: What is said instead of numbers.
_NO_NUMBERS = {Phase.CONNECTING, Phase.WAITING, Phase.WRITING}
#: Of a topic's name, or of why a transfer failed.
_MAX_CHARACTERS = 250
#: Of the parts of a bar, and of the stages.
COMMITTED, RECEIVED, NOT_RECEIVED = "#2b8a3e", "#74c0fc", "#e9ecef"
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
.ranges { columns: 480px; column-gap: 28px; font-size: 12px; font-variant-numeric: tabular-nums; }
.range { display: grid; grid-template-columns: 34px minmax(24px, 1fr) 66px 46px minmax(0, 146px) 62px 58px; gap: 6px;
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
    said = known.report.words or _line_words(known, topic)
    why = f'<div class="words" id="words">{_outside(said)}</div>' if said else ""
    tiles = "".join(
        f'<div class="tile {"bad" if is_bad else ""}" id="{name}"><b>{value}</b><span>{label}</span></div>'
        for name, value, label, is_bad in _tiles(known, topic)
    )
    title = (
        f'<h1><span id="topic">{_outside(topic.topic)}</span><span class="state {kind}" id="state">{words}</span></h1>'
    )
    return f'{title}{why}<div class="tiles">{tiles}</div>'


def _line_words(known: Reported, topic: TopicReport) -> str:
    """Say what is the matter with the line, if anything is."""
    quiet_s = known.since(topic.quiet_s)
    if not (known.is_running and topic.is_cut and quiet_s is not None):
        return ""
    words = f"nothing from Kafka for {lasting(quiet_s)}"
    if topic.reconnect_timeout_s is not None and topic.reconnect_timeout_s > quiet_s:
        words += f"; waits for {lasting(topic.reconnect_timeout_s - quiet_s)} more at most"
    return f"{words}; what came is kept meanwhile" if topic.received_bytes else words


def _tiles(known: Reported, topic: TopicReport) -> list[tuple[str, str, str, bool]]:
    """List id, value, label, and whether it is bad news."""
    running = len(topic.running) + topic.more_running
    worst = max(topic.partitions, key=lambda item: item.lag, default=None)
    where = f"lag, most in partition {worst.partition}" if worst is not None and worst.lag else "lag"
    share = 100 * topic.committed / topic.offsets if topic.offsets else 100.0
    age_s = freshness_s(topic.newest_ms, time.time())
    now = known.is_running
    received_share = min(100.0, 100 * (topic.committed + topic.received) / topic.offsets) if topic.offsets else 100.0
    quiet_s = known.since(topic.quiet_s) if now else None
    planned = f"ranges committed of {topic.ranges:,}" if not topic.is_followed else "ranges committed"
    return [
        # Rounded down: 100 % means all.
        ("share", f"{int(share * 10) / 10:g} %", f"committed of {counted(topic.offsets, 'offset')}", False),
        ("received", f"{int(received_share * 10) / 10:g} %", f"received, {amount(topic.received_bytes)}", False),
        ("alerts", f"{topic.alerts:,}", "alerts in this run", False),
        *([("filtered", f"{topic.filtered:,}", "filtered", False)] if topic.filtered else []),
        ("alerts_per_second", f"{topic.alerts_per_second:,.0f}" if now else "\N{EN DASH}", "alerts/s", False),
        (
            "bytes_per_second",
            f"{amount(round(topic.bytes_per_second))}/s" if now else "\N{EN DASH}",
            "received lately",
            False,
        ),
        (
            "response",
            "\N{EN DASH}" if quiet_s is None else f"{lasting(quiet_s)} ago",
            topic.phase if now and topic.phase in _NO_NUMBERS else "last response",
            now and topic.is_cut,
        ),
        ("lag", f"{topic.lag:,}", where, False),
        ("age", "\N{EN DASH}" if age_s is None else lasting(age_s), "age of newest alert", False),
        (
            "left",
            lasting(topic.seconds_left) if now and topic.seconds_left is not None else "\N{EN DASH}",
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
    parts = ((COMMITTED, "committed"), (RECEIVED, "received"), (NOT_RECEIVED, "not received"))
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
    rows = "".join(_range_row(known, item) for item in topic.running)
    more = f'<div class="more" id="more">and {topic.more_running:,} more</div>' if topic.more_running else ""
    if not rows:
        return '<h2>ranges running</h2><div class="more">none</div>'
    title = "ranges running: partition, received, alerts, worker, last response, time"
    return f'<h2>{title}</h2><div class="ranges">{rows}</div>{more}'


def _last_response(known: Reported, item: RunningReport) -> str:
    """Say how long ago something came for a range, where something is expected."""
    if item.waits:
        return "waits"
    quiet_s = known.since(item.quiet_s)
    return "" if quiet_s is None else f"{lasting(quiet_s)} ago"


def _range_row(known: Reported, item: RunningReport) -> str:
    size = max(item.end - item.start, 1)
    share = min(100.0, 100 * item.received / size)
    worker = _outside(item.worker.removeprefix("tcp://").removeprefix("tls://")) or "\N{EN DASH}"
    where = f"partition {item.partition}, offsets {item.start:,} to {item.end - 1:,}, next {item.position:,}, {worker}"
    return (
        f'<div class="range" title="{where}"><span class="number">{item.partition}</span>'
        f'<div class="meter"><div style="width: {share:.1f}%"></div></div>'
        f'<span class="number">{item.rows:,}</span><span class="number">{int(share)} %</span>'
        f'<span>{worker}</span><span class="number">{_last_response(known, item)}</span>'
        f'<span class="number">{lasting(item.seconds)}</span></div>'
    )


def _state(known: Reported) -> tuple[str, str]:
    """Return the kind of a transfer's state, and how to say it."""
    if known.is_lost:
        return "lost", "its process disappeared"
    if known.silent_s is not None:
        return "silent", f"no report for {lasting(known.silent_s)}"
    state = known.report.state
    if state == "running":
        return state, f"running for {lasting(known.report.seconds)}"
    words = {"done": "everything is committed", "failed": "failed", "stopped": "stopped"}
    return (state, f"{words[state]}, after {lasting(known.report.seconds)}") if state in words else ("lost", "unknown")


def _outside(text: str) -> str:
    """Escape text from outside, in one line of bounded length."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return escape(printable[:_MAX_CHARACTERS])
