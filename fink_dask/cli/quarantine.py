"""``fink-dask quarantine``: show the records that could not be decoded, and try them again."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import (
    Place,
    UserPath,
    at_least_one,
    command,
    json_option,
    log_to_stderr,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import print_json, say
from fink_dask.cli.stopped import ending_as_json
from fink_dask.errors import SettingsError
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fink_dask.ledger.ledger import Ledger

#: Columns of the table where it goes into a file or a pipe.
_WIDE = 1000
_SHOWN_REASONS = 10


@command("fink-dask quarantine alerts, or fink-dask quarantine alerts --retry --schema other.avsc")
@click.argument("outdir", type=Place())
@typed_option(
    "--limit", type=int, default=20, show_default=True, callback=at_least_one, metavar="N", help="Records to show."
)
@typed_option("--retry", is_flag=True, help="Try to decode them again, and move those that succeed into the dataset.")
@typed_option(
    "--schema",
    "schema_file",
    type=UserPath(dir_okay=False, path_type=Path),
    help="With --retry: file with the Avro schema that they were written with; the dataset keeps its own.",
)
@json_option
@verbose_option
def quarantine(outdir: Path, limit: int, retry: bool, schema_file: Path | None, as_json: bool, verbose: bool) -> int:
    """Show the records of OUTDIR that could not be decoded: where they are in the topic, and why.

    Their bytes are in Parquet files in OUTDIR.fink/quarantine. Exit status: 0, 1 failed, 3 if some are left after
    --retry.
    """
    from fink_dask.ledger.outdir import check_dataset, find_ledger

    log_to_stderr(verbose)
    ledger = find_ledger(outdir.resolve())
    check_dataset(ledger)
    if retry:
        return _retry(ledger, schema_file, as_json)
    if schema_file is not None:
        raise SettingsError("--schema needs --retry: give that as well")
    _show(ledger, limit, as_json)
    return 0


def _retry(ledger: Ledger, schema_file: Path | None, as_json: bool) -> int:
    from fink_dask.avro.files import read_schema_file
    from fink_dask.cli.results import headline, print_summary_json
    from fink_dask.ledger.summary import summarise
    from fink_dask.show.bar import CountBar
    from fink_dask.verifying.quarantine_retry import retry_quarantine

    with ending_as_json(ledger, as_json), CountBar("decoding", noun="record") as bar:
        schema = None if schema_file is None else read_schema_file(schema_file)
        bar.plan(summarise(ledger).summary.quarantined)
        found = retry_quarantine(ledger, schema, bar.advance)
    if as_json:
        print_summary_json(found.summary, recovered=found.recovered, recovered_filtered=found.filtered)
    else:
        say(headline(found.summary))
        left = pluralize(found.summary.quarantined, "record")
        filtered = f" and {found.filtered:,} that the condition leaves out" if found.filtered else ""
        say(f"  recovered  {pluralize(found.recovered, 'alert')}{filtered}; {left} left in quarantine")
    return found.summary.exit_code


def _show(ledger: Ledger, limit: int, as_json: bool) -> None:
    reasons: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    for record in _records(ledger):
        reasons[record["reason"]] += 1
        if len(shown) < limit:
            shown.append(record)
    if as_json:
        print_json({"quarantined": reasons.total(), "reasons": dict(reasons), "records": shown})
        return
    if not reasons:
        say(f"{ledger.outdir}: no records in quarantine")
        return
    from rich.console import Console
    from rich.table import Table

    say(f"{ledger.outdir}: {pluralize(reasons.total(), 'record')} in quarantine")
    for reason, count in reasons.most_common(_SHOWN_REASONS):
        say(f"  {count:>9,}  {reason}")
    if len(reasons) > _SHOWN_REASONS:
        say(f"  and {pluralize(len(reasons) - _SHOWN_REASONS, 'other reason')}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("partition", "offset", "bytes"):
        table.add_column(column, justify="right")
    table.add_column("time")
    table.add_column("reason", overflow="fold")
    for record in shown:
        size = "none" if record["bytes"] is None else f"{record['bytes']:,}"
        table.add_row(str(record["partition"]), str(record["offset"]), size, record["time"] or "", record["reason"])
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)
    if reasons.total() > limit:
        say(f"  and {pluralize(reasons.total() - limit, 'more record')} (--limit N shows more)")


def _records(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Yield what is known of each quarantined record, without its bytes."""
    from fink_dask.dataset.quarantine import read_quarantine

    for marker in ledger.markers(ledger.plans()):
        if marker.quarantine is None:
            continue
        for batch in read_quarantine(ledger, marker.quarantine):
            for row in batch.to_pylist():
                time: datetime | None = row["kafka_timestamp"]
                yield {
                    "partition": row["kafka_partition"],
                    "offset": row["kafka_offset"],
                    "time": None if time is None else time.isoformat(timespec="seconds"),
                    "bytes": None if row["value"] is None else len(row["value"]),
                    "reason": row["reason"],
                }
