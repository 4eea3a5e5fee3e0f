"""Print what a dataset holds, for people or as JSON for scripts; results go to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from fink_dask.cli.output import print_json, say
from fink_dask.errors import FinkDaskError
from fink_dask.units import per_second, pluralize

if TYPE_CHECKING:
    from fink_dask.kafka.offsets import Interval
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.summary import Summary
    from fink_dask.planning.preview import Outlook
    from fink_dask.progress.events import Forecast
    from fink_dask.progress.profile import Profile
    from fink_dask.running.run import TopicOutcome

#: What arrived in vain is mentioned from this share of what arrived on.
_WASTED = 0.1
#: What comes over the line is said where it is so many times what the alerts hold.
_MUCH_MORE = 1.5
STATE_COLOURS = {"complete": "green", "partial": "yellow", "failed": "red", "interrupted": "yellow"}


def print_summary_json(summary: Summary, **more: object) -> None:
    """Print a summary as one JSON object."""
    print_json(asdict(summary) | {"run_seconds": round(summary.run_seconds, 3)} | more)


def print_summary(
    summary: Summary,
    ledger: Ledger,
    as_json: bool,
    profile: Profile | None = None,
    parts: Sequence[TopicOutcome] = (),
) -> None:
    """Print what a transfer has done, what the dataset was made of, and on request where its time went."""
    if as_json:
        more: dict[str, object] = {} if profile is None else {"profile": profile.to_json()}
        print_summary_json(summary, **more, **({"parts": [asdict(part.summary) for part in parts]} if parts else {}))
        return
    say(headline(summary))
    if summary.run_alerts:
        speed = per_second(summary.run_alerts / max(summary.run_seconds, 1e-3), "alert")
        seconds = f"{summary.run_seconds:.1f} s, start included"
        say(f"  this run   {pluralize(summary.run_alerts, 'alert')} in {seconds} ({speed})")
    if summary.run_wasted_bytes > _WASTED * summary.run_received_bytes:
        received, wasted = decimal(summary.run_received_bytes), decimal(summary.run_wasted_bytes)
        say(f"  received   {received}, of which {wasted} in vain")
    if summary.alerts or summary.filtered:
        say(f"  dataset    {ledger.outdir}")
        say(f"  ledger     {ledger.path}")
    for part in parts:
        say(f"  made of    {part.ledger.outdir} ({pluralize(part.summary.alerts, 'record')})")
    if profile is not None:
        print_profile(profile)
    for held, of in (*((part.summary, part.ledger) for part in parts), (summary, ledger)):
        if held.quarantined:
            say(f"  records that could not be decoded are in {of.path / 'quarantine'}")


def say_absent(outdir: Path, what: str) -> None:
    """Say why something is empty that was made of a dataset, where its alerts are elsewhere or were filtered."""
    from fink_dask.dataset.read import absent_from

    if absent := absent_from(outdir):
        say(f"fink-dask: {outdir} has {what}{absent}", err=True)


def print_profile(profile: Profile) -> None:
    """Print where the time of a run went."""
    phases = (("to the first batch", profile.start_seconds), ("to the last commit", profile.work_seconds))
    for words, seconds in (*phases, ("to the end", profile.finish_seconds)):
        say(f"  {words:<22} {seconds:>8.2f} s")
    total = sum(profile.stage_seconds.values())
    say("  consumers' time, all together")
    for stage, seconds in profile.stage_seconds.items():
        say(f"    {stage:<20} {seconds:>8.2f} s {100 * seconds / max(total, 1e-9):>4.0f} %")


def headline(summary: Summary, running: bool = False) -> str:
    """Return state and sums in a few lines; a transfer that is still running is not called interrupted."""
    word = "running" if running else summary.state
    state = click.style(word, fg=STATE_COLOURS[summary.state], bold=True)
    sizes = f"{decimal(summary.written_bytes)} in {pluralize(summary.files, 'file')}"
    if summary.raw_bytes:
        sizes += f" ({decimal(summary.raw_bytes)} in Kafka)"
    lines = [f"{summary.topic}: {state}", f"  alerts     {summary.alerts:,}, {sizes}"]
    for name in ("filtered", "duplicates", "handed_over", "quarantined", "lost"):
        if getattr(summary, name):
            lines.append(f"  {name.replace('_', ' '):<10} {getattr(summary, name):,}")
    for name in ("since", "until"):
        if getattr(summary, name) is not None:
            lines.append(f"  {name:<10} {getattr(summary, name)}, by the time in Kafka")
    if summary.limit is not None:
        lines.append(f"  limit      {pluralize(summary.limit, 'alert')}, and the topic held more")
    return "\n".join(lines)


def print_intervals(title: str, intervals: dict[int, list[Interval]]) -> None:
    """Print offsets by partition, the first few of each."""
    for partition, found in intervals.items():
        shown = ", ".join(f"[{start}, {end})" for start, end in found[:5])
        more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
        say(f"  {title} in partition {partition}: offsets {shown}{more}")


def outlook_json(outlook: Outlook) -> dict[str, Any]:
    """Return what a transfer would do, as ``--json`` prints it."""
    plan = outlook.plan
    return {
        "topic": outlook.topic,
        "offsets": outlook.offsets,
        "removed": outlook.removed,
        "estimated_bytes": plan.estimated_bytes if plan else 0,
        "where": outlook.where,
        "remark": outlook.remark,
        "matches": None if outlook.matches is None else asdict(outlook.matches),
        "forecast": None if outlook.forecast is None else asdict(outlook.forecast),
        "ranges": outlook.open_ranges + (len(plan.ranges) if plan else 0),
        "committed_ranges": outlook.committed_ranges,
        "committed_alerts": outlook.committed_alerts,
        "resume_at": outlook.resume_at,
    }


def print_outlook(
    outlook: Outlook,
    outdir: Path,
    as_json: bool,
    job_script: str | None = None,
    lack: FinkDaskError | None = None,
) -> None:
    """Print what a transfer would do, with what jobs, and why it would be refused nonetheless."""
    if as_json:
        more = {} if lack is None else {"state": "failed", "error": str(lack)}
        print_json(outlook_json(outlook) | more | ({} if job_script is None else {"job_script": job_script}))
        return
    _print_outlook(outlook, outdir)
    if lack is not None:
        say(f"  would be refused: {lack}")
    if job_script is not None:
        print_job_script(job_script)


def print_job_script(script: str) -> None:
    """Print the script of each job."""
    click.echo(f"\nscript of each job:\n\n{script}", nl=False)


def _print_forecast(forecast: Forecast) -> None:
    if forecast.seconds is None or forecast.raw_bytes is None:
        say("  would take      not known, as no alert came in time")
    else:
        say(f"  would take      about {forecast.took}")
        if forecast.warning:
            say(f"  warning         {forecast.warning}")
        if forecast.wire_bytes is not None and forecast.wire_bytes > _MUCH_MORE * forecast.raw_bytes:
            say(f"  would fetch     about {decimal(forecast.wire_bytes)}, as keys hold more than the alerts do")
    if forecast.free_bytes is not None:
        size = "not known" if forecast.written_bytes is None else f"about {decimal(forecast.written_bytes)}"
        say(f"  would write     {size}, with {decimal(forecast.free_bytes)} free")


def _print_outlook(outlook: Outlook, outdir: Path) -> None:
    plan = outlook.plan
    say(f"{outlook.topic} into {outdir} (--dry-run writes nothing)")
    if outlook.remark is not None:
        say(f"  note            {outlook.remark}")
    if outlook.committed_ranges:
        alerts, ranges = pluralize(outlook.committed_alerts, "alert"), pluralize(outlook.committed_ranges, "range")
        say(f"  already there   {alerts} in {ranges}")
    if outlook.open_ranges:
        say(f"  left open       {pluralize(outlook.open_ranges, 'range')} by an earlier run")
    if plan is not None:
        offsets, ranges = pluralize(sum(map(len, plan.ranges)), "offset"), pluralize(len(plan.ranges), "range")
        size = f"about {decimal(plan.estimated_bytes)} (estimated from a few alerts per partition)"
        if not plan.estimated_bytes:
            size = "of unknown size"
        say(f"  to plan         {offsets} in {ranges}, {size}")
    if outlook.removed:
        say(f"  would be lost   {pluralize(outlook.removed, 'offset')} that Kafka has already removed")
    if not outlook.offsets:
        say("  nothing to read" if outlook.removed else "  nothing to do")
        return
    say(f"  would read      {pluralize(outlook.offsets, 'offset')}, one alert each except those that Kafka itself uses")
    say(f"  line            {outlook.line.words}")
    if outlook.forecast is not None:
        _print_forecast(outlook.forecast)
    if outlook.where is not None:
        seen = "" if outlook.matches is None else f": {outlook.matches.words}"
        say(f"  would keep      alerts for which {outlook.where}{seen}")
    if outlook.committed_ranges:
        for partition, start in outlook.resume_at.items():
            say(f"    partition {partition} from offset {start:,}")
