"""``fink-dask status``: how far a transfer has got, even while it runs."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import Place, command, json_option
from fink_dask.cli.output import say
from fink_dask.errors import FinkDaskError, LedgerError
from fink_dask.units import per_second, pluralize

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.summary import Arrival, Completeness, Lag

#: Seconds after which the notes of a running transfer are out of date; they are written every second or two.
_NOTE_S = 30.0


@dataclass(frozen=True)
class _Seen:
    """What a ledger says at one moment."""

    running: bool
    completeness: Completeness
    #: lag, arrival: of a transfer that is running.
    lag: Lag | None = None
    arrival: Arrival | None = None
    #: When the topic was last followed, in seconds since 1970-01-01 UTC, where that has ended.
    followed_until: float | None = None


@command("fink-dask status alerts")
@click.argument("outdir", type=Place())
@json_option
def status(outdir: Path, as_json: bool) -> int:
    """Show how far the transfer into OUTDIR has got; only reads the ledger, and writes nothing.

    If OUTDIR holds the datasets of several topics, each of them is shown. Exit status: 0 however far it is, running,
    interrupted or complete (--json has it as state, and verify's exit status tells), 1 if that can't be told.
    """
    from fink_dask.cli.results import headline, print_intervals, print_summary_json
    from fink_dask.ledger.lease import is_held
    from fink_dask.ledger.outdir import check_dataset, dataset_beside, datasets_in, find_ledger, unfinished
    from fink_dask.show.display import lag_words, line_parts, received_words

    ledger = find_ledger(outdir.resolve())
    if not ledger.exists():
        several = datasets_in(ledger.outdir)
        if several:
            return _say_each(several, as_json)
        if ledger.compaction_path.exists():
            raise LedgerError(unfinished(ledger))
        if is_held(ledger):
            raise LedgerError(
                f"a transfer into {ledger.outdir} has begun but not planned yet, as when its jobs wait in a queue: "
                "try again later"
            )
        if ledger.outdir.is_dir() and any(ledger.outdir.iterdir()):
            check_dataset(ledger)
        lack = f"there is no ledger {ledger.path}: no transfer into {ledger.outdir} was planned yet"
        if not ledger.outdir.exists() and not ledger.path.exists():
            lack = f"there is no dataset {ledger.outdir}, nor a ledger of one beside it: check the name"
        raise LedgerError(f"{lack}{dataset_beside(ledger) or '; of a topic that is empty, nothing is written'}")
    seen = _look(ledger)
    running, completeness, lag, arrival = seen.running, seen.completeness, seen.lag, seen.arrival
    if as_json:
        print_summary_json(completeness.summary, **_details(seen))
        return 0
    say(headline(completeness.summary, running))
    done = completeness.planned_offsets - completeness.missing_offsets
    share = 100 * done // max(completeness.planned_offsets, 1)  # rounded down: what is not all is not 100 %
    say(
        f"  committed  {share} %: {done:,} of {pluralize(completeness.planned_offsets, 'offset')}, "
        f"{completeness.summary.ranges:,} of {pluralize(completeness.planned_ranges, 'range')}"
    )
    say(f"  running    {'yes' if running else 'no'}")
    if arrival is not None:
        words = [received_words(arrival), *(part.words for part in line_parts(arrival))]
        say(f"  this run   {', '.join(words)}")
    if lag is not None:
        say(f"  following  {lag_words(lag, time.time() - lag.at)}, {per_second(lag.alerts_per_second, 'alert')}")
    _say_followed([seen])
    if completeness.missing and not running:
        print_intervals("missing", completeness.missing)
        say("  run the same transfer again to continue")
    return 0


def _say_followed(found: Collection[_Seen]) -> None:
    """Say that topics are not followed any more: all that was planned may be there, and more have come since."""
    ended = [seen.followed_until for seen in found if seen.followed_until is not None]
    if ended and not any(seen.running for seen in found):
        when = f"{datetime.fromtimestamp(max(ended), UTC):%Y-%m-%d %H:%M} UTC"
        if len(ended) < len(found):  # the others were transferred as they were
            when += f", {len(ended):,} of {pluralize(len(found), 'topic')}"
        say(f"  followed   until {when}; the same command goes on with what has come since")


def _look(ledger: Ledger) -> _Seen:
    from fink_dask.ledger.commit import gone_files
    from fink_dask.ledger.lease import is_held
    from fink_dask.ledger.summary import completeness_of, read_arrival, read_lag

    running = is_held(ledger)
    plans = ledger.plans()
    markers = ledger.markers(plans)
    completeness = completeness_of(plans, markers)
    if not running:
        if gone := gone_files(ledger, plans, markers):
            from fink_dask.dataset.presence import missing_error  # here, as it loads what reads the files

            raise missing_error(gone)
        last = read_lag(ledger, time.time())  # however old
        return _Seen(False, completeness, followed_until=None if last is None else last.at)
    return _Seen(True, completeness, read_lag(ledger, _NOTE_S), read_arrival(ledger, _NOTE_S))


def _details(seen: _Seen) -> dict[str, Any]:
    """Return what ``--json`` prints besides the summary."""
    from fink_dask.ledger.summary import freshness_s

    running, completeness, lag, arrival = seen.running, seen.completeness, seen.lag, seen.arrival
    return {
        **({"state": "running"} if running else {}),  # as is said without --json; to the summary it is interrupted
        "running": running,
        "planned_ranges": completeness.planned_ranges,
        "planned_offsets": completeness.planned_offsets,
        "missing_offsets": completeness.missing_offsets,
        "freshness_s": freshness_s(completeness.newest_ms, time.time()),
        "lag": None if lag is None else {"total": lag.total, "partitions": lag.partitions},
        "alerts_per_second": None if lag is None else lag.alerts_per_second,
        "received": None if arrival is None else asdict(arrival),
        "followed_until": seen.followed_until,
    }


def _say_each(ledgers: list[Ledger], as_json: bool) -> int:
    """Show how far each of several topics has got, one line each."""
    from fink_dask.cli.several import print_table, print_topics_json
    from fink_dask.ledger.summary import without_figures
    from fink_dask.show.display import lags_words

    found, errors = {}, {}
    for ledger in ledgers:
        try:
            found[ledger] = _look(ledger)
        except FinkDaskError as error:
            errors[ledger] = str(error)
    unread = [without_figures(ledger) for ledger in errors]
    datasets = [ledger.outdir.name for ledger in (*found, *errors)]
    summaries = [*(seen.completeness.summary for seen in found.values()), *unread]
    if as_json:
        details = [*map(_details, found.values()), *({"error": words} for words in errors.values())]
        named = [{"dataset": name} | each for name, each in zip(datasets, details, strict=True)]
        print_topics_json(summaries, named)
        return int(bool(errors))
    states = ["running" if seen.running else seen.completeness.summary.state for seen in found.values()]
    print_table(summaries, [*states, *(summary.state for summary in unread)], datasets)
    lags = {ledger.outdir.name: seen.lag for ledger, seen in found.items() if seen.lag is not None}
    if lags:
        speed = sum(lag.alerts_per_second for lag in lags.values())
        seen_s = time.time() - min(lag.at for lag in lags.values())
        say(f"  following  {lags_words(lags, seen_s)}, {per_second(speed, 'alert')}")
    _say_followed(found.values())
    if any(seen.completeness.missing and not seen.running for seen in found.values()):
        say("  run the same transfer again to continue the interrupted ones")
    for words in errors.values():
        say(f"  {words}")
    return int(bool(errors))
