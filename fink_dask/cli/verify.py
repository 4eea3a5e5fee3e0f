"""``fink-dask verify``: prove that a dataset is what its ledger says, and on request what Kafka holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import (
    Place,
    at_least_one,
    command,
    config_option,
    connection_options,
    json_option,
    kafka_settings,
    line_options,
    log_to_stderr,
    option,
    survey_of_dataset,
    verbose_option,
)
from fink_dask.cli.output import say
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.offsets import subtract
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.summary import Summary
    from fink_dask.settings import KafkaSettings
    from fink_dask.verifying.against_kafka import Comparison
    from fink_dask.verifying.files import Verification

_SHOWN_PROBLEMS = 20


@command("fink-dask verify alerts, or fink-dask verify alerts --sample 1000")
@click.argument("outdir", type=Place())
@option("--against-kafka", is_flag=True, help="Also compare with the topic as it is now: its id and its watermarks.")
@option(
    "--sample",
    type=int,
    callback=at_least_one,
    metavar="N",
    help="Also read N alerts again from Kafka, in short runs that begin at random all over the topic, decode them with "
    "fastavro, and compare every value.",
)
@option("--seed", type=int, metavar="N", help="Random seed of --sample, to choose the same alerts again.")
@connection_options
@line_options
@json_option
@verbose_option
@config_option
def verify(
    outdir: Path,
    against_kafka: bool,
    sample: int | None,
    seed: int | None,
    as_json: bool,
    verbose: bool,
    **connection: Any,
) -> int:
    """Check files, rows, checksums and offsets of the dataset OUTDIR against its ledger.

    If OUTDIR holds the datasets of several topics, each of them is checked, and the worst exit status counts.

    Exit status: 0 complete, 1 offsets are missing or files are not what was written, 3 complete except for quarantined
    or lost alerts.
    """
    from fink_dask.ledger.outdir import find_datasets

    log_to_stderr(verbose)
    ledger, several = find_datasets(outdir.resolve())
    asked = against_kafka or sample

    def kafka_of(one: Ledger) -> KafkaSettings | None:
        return kafka_settings(survey_of_dataset(one), **dict(connection)) if asked else None

    if several:
        _require_servers(several, kafka_of)
        return _verify_each(several, kafka_of, sample, seed, as_json)
    return _verify(ledger, kafka_of(ledger), sample, seed, lambda found, compared: _say(found, compared, as_json))


def _require_servers(ledgers: list[Ledger], kafka_of: Callable[[Ledger], KafkaSettings | None]) -> None:
    """Verify nothing where nothing tells the servers of any dataset: surveys may have servers of their own.

    Raises FinkDaskError if that is so.
    """
    refusals: list[FinkDaskError] = []
    for ledger in ledgers:
        try:
            kafka_of(ledger)
        except FinkDaskError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def _verify(
    ledger: Ledger,
    kafka: KafkaSettings | None,
    sample: int | None,
    seed: int | None,
    answer: Callable[[Verification, Comparison | None], int],
) -> int:
    """Verify a dataset, and say what was found; returns the exit status."""
    from fink_dask.ledger.summary import written_bytes
    from fink_dask.show.bar import CountBar
    from fink_dask.verifying.files import verify_dataset

    with CountBar("verifying", written_bytes(ledger)) as reading:
        found = verify_dataset(ledger, reading.advance)
    compared = None
    if kafka is not None and not found.problems:
        from fink_dask.verifying.against_kafka import compare_with_kafka

        planned = found.completeness.planned_offsets
        with CountBar("reading from Kafka", min(sample or 0, planned), "record") as bar:
            try:
                compared = compare_with_kafka(ledger, kafka, sample or 0, seed, bar.advance, bar.wait)
            except FinkDaskError:
                bar.stop()
                answer(found, None)  # what was found in the files stands, whatever Kafka does
                raise
    if kafka is not None and compared is None:
        say("fink-dask: not compared with Kafka, as the dataset itself is damaged", err=True)
    return answer(found, compared)


def _verify_each(
    ledgers: list[Ledger],
    kafka_of: Callable[[Ledger], KafkaSettings | None],
    sample: int | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """Verify the datasets of several topics, in turn; returns the worst exit status."""
    from fink_dask.cli.several import print_table, print_topics_json
    from fink_dask.ledger.outdir import total_of
    from fink_dask.ledger.summary import without_figures

    summaries: list[Summary] = []
    details: list[dict[str, Any]] = []
    errors: dict[str, str] = {}

    def note(found: Verification, compared: Comparison | None) -> int:
        summary, about = _result(found, compared)
        summaries.append(summary)
        details.append(about)
        if summary.state in {"failed", "interrupted"} and not as_json:
            _say(found, compared, as_json=False)
        return summary.exit_code

    datasets = [ledger.outdir.name for ledger in ledgers]
    for number, (name, ledger) in enumerate(zip(datasets, ledgers, strict=True)):
        try:
            _verify(ledger, kafka_of(ledger), sample, seed, note)
        except FinkDaskError as error:
            if len(summaries) > number:  # what its files say
                summaries[-1] = replace(summaries[-1], state="failed")
            else:
                summaries.append(without_figures(ledger))
                details.append({})
            errors[name] = str(error)
            details[-1]["error"] = str(error)
        details[-1]["dataset"] = name
    total = total_of(summaries)
    if as_json:
        print_topics_json(summaries, details)
        return total.exit_code
    print_table(summaries, datasets=datasets)
    for words in errors.values():
        say(f"  {words}")
    if total.exit_code in {0, 3}:
        say("  all planned offsets of each are accounted for, exactly once")
    return total.exit_code


def _result(found: Verification, compared: Comparison | None) -> tuple[Summary, dict[str, Any]]:
    """Return the summary, and what ``--json`` prints besides."""
    problems = [*found.problems, *(compared.problems if compared is not None else ())]
    summary = replace(found.summary, state="failed") if problems else found.summary
    more = {} if compared is None else {"kafka": asdict(compared)}
    about = {"problems": problems, "missing": found.completeness.missing, "damaged": found.damaged_ranges}
    return summary, about | more


def _say(found: Verification, compared: Comparison | None, as_json: bool) -> int:
    from fink_dask.cli.results import headline, print_intervals, print_summary_json

    summary, about = _result(found, compared)
    if as_json:
        print_summary_json(summary, **about)
        return summary.exit_code
    problems = about["problems"]
    say(headline(summary))
    for problem in problems[:_SHOWN_PROBLEMS]:
        say(f"  {problem}")
    if len(problems) > _SHOWN_PROBLEMS:
        click.echo(f"  and {len(problems) - _SHOWN_PROBLEMS:,} more (--json lists them all)")
    print_intervals("damaged", found.damaged_ranges)
    if found.damaged_ranges:
        say("  fink-dask repair fetches again from Kafka what is missing or damaged")
    damaged = found.damaged_ranges
    missing = {
        partition: subtract(lacks, damaged.get(partition, []))
        for partition, lacks in found.completeness.missing.items()
    }
    missing = {partition: lacks for partition, lacks in missing.items() if lacks}
    print_intervals("missing", missing)
    if missing:
        say("  run the same transfer again to continue")
    print_intervals("lost", found.completeness.lost)
    if not problems and not found.completeness.missing:
        planned = found.completeness.planned_offsets
        every = f"all {planned:,} planned offsets are" if planned != 1 else "the one planned offset is"
        say(f"  {every} accounted for, exactly once")
    if compared is not None:
        _say_compared(compared)
    return summary.exit_code


def _say_compared(compared: Comparison) -> None:
    if not compared.problems:
        say("  Kafka      the topic is the one that was transferred")
    if compared.equal:
        say(f"  Kafka      {pluralize(compared.equal, 'record')} read again, each the same as in the dataset")
    if compared.holes:
        say(f"  Kafka      holds no record at {pluralize(compared.holes, 'offset')} of the sample, as the ledger says")
    if compared.incomparable:
        say(f"  Kafka      {pluralize(compared.incomparable, 'record')} of the sample can no longer be compared")
    if compared.gone:
        say(f"  Kafka      no longer has {pluralize(compared.gone, 'planned offset')}")
    if compared.newer:
        newer = pluralize(compared.newer, "newer record")
        say(f"  Kafka      has {newer}: run the same transfer again to fetch more")
