"""``python -m benchmarks.stages``: where the time of a transfer goes, stage by stage, today and before, by turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.cases import BATCHSIZE, BEFORE, FINK_DASK, KINDS, SCALES, Contestant
from benchmarks.environments import CACHE, Environments
from benchmarks.errors import BenchmarkError
from benchmarks.fill import FilledTopic
from benchmarks.machine import commit, usable_cores
from benchmarks.measure import measure
from benchmarks.page import STAGES, write_page
from benchmarks.results import load
from benchmarks.session import COMMANDS, Session, fill, rehearse, work_folder
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import unseal
from fink_dask.progress.profile import Profile
from tests.harness.kafka import KafkaBroker

#: The topics that take so long that their start is little of it.
_TOPICS = ("light_l", "ztf_l", "lsst_l")
_LIMIT_S = 900.0


@click.command()
@click.option("--scale", type=click.Choice(sorted(SCALES)), default="full", show_default=True, help="How large.")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Measurements a median.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Keep the figures there, such as docs, and draw the page that is there anew.",
)
def main(scale: str, runs: int, out: Path | None) -> None:
    """Print what each run took, and the medians of each topic and program as a line of JSON."""
    try:
        measure_stages(scale, runs, out, click.echo)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from error
    if out is not None:
        write_page(load(out), out)


def measure_stages(scale: str, runs: int, out: Path | None, say: Callable[[str], None]) -> None:
    """Measure both by turns on the large topics, with a Kafka of its own, and keep the figures for the page.

    Raises BenchmarkError: Kafka has not taken all alerts, or a transfer failed.
    """
    found: list[dict[str, object]] = []
    with work_folder("stages") as work:
        (logs := CACHE / "logs" / "stages").mkdir(parents=True, exist_ok=True)
        broker = KafkaBroker(work / "kafka")
        try:
            broker.start()
            session = Session(broker.bootstrap_servers, Environments(Path()), work, logs, say)
            rehearse(session)
            for key in _TOPICS:
                topic = fill(session, key, SCALES[scale].alerts[key])
                measured: dict[Contestant, list[dict[str, float]]] = {BEFORE: [], FINK_DASK: []}
                for turn in range(runs):
                    # Whoever comes second finds what the first has left of the machine's memory.
                    for who in (BEFORE, FINK_DASK) if turn % 2 else (FINK_DASK, BEFORE):
                        measured[who].append(_run(session, who, topic))
                        say(f"{key}: {who}, {measured[who][-1]['processor time']:.2f} processor µs an alert")
                for who, each in measured.items():
                    medians = {name: statistics.median(one[name] for one in each) for name in each[0]}
                    row: dict[str, object] = {"alerts": topic.alerts, "kind": KINDS[key], "program": who, "runs": runs}
                    row |= medians
                    found.append(row)
                    say(json.dumps(row))
        finally:
            broker.discard()
    if out is not None:
        kept = {"commit": commit(), "rows": found}
        (out / STAGES).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _run(session: Session, who: Contestant, topic: FilledTopic) -> dict[str, float]:
    """Transfer a topic; return the microseconds an alert of each stage, then those of the processors, all together."""
    job = session.job(topic, usable_cores(), BATCHSIZE)
    log = session.logs / f"{topic.name}-{who}.log"
    measured = measure(COMMANDS[who](job), log, _LIMIT_S)
    if measured.status != 0:
        raise BenchmarkError(f"{who} ended with status {measured.status}: see {log}")
    (path,) = Ledger(job.outdir).profiles_path.iterdir()
    profile = Profile.from_json(unseal("profile", path))
    seconds = {**profile.stage_seconds, "processor time": measured.cpu_s}
    return {name: round(1e6 * each / topic.alerts, 3) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
