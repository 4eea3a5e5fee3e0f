"""``fink-dask transfer``: move a topic into a dataset."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.cluster import asked_cluster, cluster_options
from fink_dask.cli.command import (
    Place,
    command,
    config_option,
    connection_options,
    json_option,
    kafka_settings,
    line_options,
    log_to_stderr,
    option,
    options_from,
    take,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import say
from fink_dask.cli.several import ledgers_of, preview_topics, print_outcome, survey_of_topics, topic_option
from fink_dask.cli.stopped import counting, failure_as_json
from fink_dask.errors import BrokerError, FinkDaskError, SchemaError, SettingsError, parameter
from fink_dask.kafka.topics import TopicChoice, choose_topics, holds_predictions
from fink_dask.settings import (
    FOLLOW,
    OUTFORMATS,
    WHERE_TO,
    FollowSettings,
    TransferSettings,
    options_of,
)
from fink_dask.units import Moment, Window, pluralize

if TYPE_CHECKING:
    from fink_dask.cluster.choice import ClusterChoice
    from fink_dask.kafka.inspect import Inspector
    from fink_dask.planning.ahead import FirstLook
    from fink_dask.settings import KafkaSettings


#: How following ends where the user does not say.
_IDLE_S = 60.0


#: When this was loaded, which is nearly when the program began.
_BEGAN = time.monotonic()


def follow_settings(follow: bool, given: dict[str, Any], until: Moment | None = None) -> FollowSettings | None:
    """Collect how the topic is followed, perhaps until a time; None where it is not.

    Raises SettingsError if the topic is not followed and something of it is given, or a value is out of its bounds.
    """
    said = {name: value for name, value in given.items() if value is not None}
    if follow:
        said |= {} if until is None else {"until": until.time}
        ends = said.keys() - {"roll_interval_s"}
        return FollowSettings(**(said if ends else said | {"idle_timeout_s": _IDLE_S}))
    if said:
        wrong = options_of(FollowSettings)[next(iter(said))][0].name
        raise SettingsError(f"{parameter(wrong)} needs {parameter('follow')}: give that as well")
    return None


def dump_schemas_of(settings: TransferSettings, choice: TopicChoice) -> None:
    """Write the Avro schemas of each topic, and what Arrow makes of them, into the current directory.

    The first one is named after the topic alone. Others, which records have in their keys, are numbered, and those of
    records that can't be in the same dataset come last. Where several topics are meant, one without a schema is
    reported, and the others go on.

    Raises FinkDaskError if the only topic has none, or a file can't be written.
    """
    from fink_dask.kafka.inspect import open_inspector
    from fink_dask.planning.predicted import is_predicted, with_alerts
    from fink_dask.planning.preview import topics_now
    from fink_dask.planning.several import settings_of
    from fink_dask.planning.waiting import wait_for_topics
    from fink_dask.show.display import Display

    if is_predicted(choice):
        with Display() as progress:
            choice, settings = with_alerts(settings, progress, restart=True)
    with Display() as progress, open_inspector(settings.kafka, window=settings.window) as inspector:
        wait_for_topics(settings, choice, inspector, progress)
        if not choice.is_several:
            _dump(settings, inspector)
            return
        for topic in topics_now(choice, inspector):
            try:
                _dump(settings_of(settings, choice, topic), inspector)
            except (BrokerError, SchemaError) as error:
                say(f"fink-dask: no schema of {topic} was written: {error}", err=True)


def _dump(settings: TransferSettings, inspector: Inspector) -> None:
    import pyarrow.parquet as pq

    from fink_dask.ledger.outdir import find_ledger
    from fink_dask.planning.schemas import inspect_topic

    # All schemas, also of a topic that has too many of them for the files that are asked for.
    target = inspect_topic(
        replace(settings, outformat=OUTFORMATS[0]), inspector, find_ledger(settings.outdir), fresh=True
    )
    if target is None:
        return
    schemas = [*target.versions.schemas, *(misfit.schema for misfit in target.misfits)]
    avro_paths = [
        Path(f"avro_schema_{settings.topic}{f'_{number}' if number > 1 else ''}.json")
        for number in range(1, len(schemas) + 1)
    ]
    arrow_path = Path(f"arrow_schema_{settings.topic}.metadata")
    try:
        for path, schema in zip(avro_paths, schemas, strict=True):
            path.write_text(json.dumps(json.loads(schema.text), indent=4), encoding="utf-8")
        pq.write_metadata(target.versions.arrow, arrow_path)
    except OSError as error:
        raise SettingsError(f"can't write {error.filename}: {error.strerror}") from error
    say(f"schemas written to {', '.join(map(str, avro_paths))} and {arrow_path}", err=True)


def _without_effect(_: click.Context, parameter: click.Parameter, value: object) -> None:
    """Accept an option of Fink's own client that has no effect here, and say so."""
    if value is not None:
        say(f"fink-dask: --{str(parameter.name).replace('_', '-')} has no effect here", err=True)


@command(
    "fink-dask transfer --topic ftransfer_ztf_2026-02-24_123456 --outdir alerts --partitionby time",
    bare=("topic", "outdir"),
)
@topic_option
@option(
    "--outdir",
    group=WHERE_TO,
    required=True,
    type=Place(),
    help="Directory of the dataset, or s3://BUCKET/NAME; its ledger is OUTDIR.fink beside it. With several topics, the "
    "directory of their datasets.",
)
@options_from(TransferSettings)
@typed_option("--follow", is_flag=True, group=FOLLOW, help="Keep transferring what arrives while Fink fills the topic.")
@options_from(FollowSettings)
@connection_options
@line_options
@option(
    "--dump-schemas",
    "--dump-schema",
    is_flag=True,
    help="Write avro_schema_TOPIC.json and arrow_schema_TOPIC.metadata to the working directory.",
)
@typed_option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@typed_option(
    "--restart",
    "--restart-from-beginning",
    group=WHERE_TO,
    is_flag=True,
    help="Start over; delete the old dataset when done.",
)
@typed_option("--yes", "-y", group=WHERE_TO, is_flag=True, help="Do not ask before --restart.")
@cluster_options
@typed_option("--maxtimeout", type=float, hidden=True, expose_value=False, callback=_without_effect)
@typed_option("--number-partitions", type=int, hidden=True, expose_value=False, callback=_without_effect)
@option("--profile", is_flag=True, help="At the end, print where the time went.")
@json_option
@verbose_option
@config_option
def transfer(
    topics: tuple[str, ...],
    outdir: Path,
    follow: bool,
    dump_schemas: bool,
    dry_run: bool,
    restart: bool,
    yes: bool,
    profile: bool,
    as_json: bool,
    verbose: bool,
    **given: Any,
) -> int:
    """Move everything that a topic holds into a partitioned Parquet dataset, exactly once.

    Run the same command again to continue where it stopped, or to fetch what has arrived since. Exit status:
    0 complete, 1 failed, 2 a wrong option or column, 3 finished but alerts were quarantined or lost, 130 and 143
    interrupted; with several topics, the worst. That of --dry-run is 1 where the transfer would be refused.
    """
    choice = choose_topics(topics)
    where = asked_cluster(given)
    asked, following = take(TransferSettings, given), take(FollowSettings, given)
    kafka = kafka_settings(asked["survey"] or survey_of_topics(choice), **given)
    look: FirstLook | None = None
    if where.is_here and not dry_run:
        asks = restart and not yes  # it may be a while until there is an answer
        look = _begin_early(kafka, choice, outdir, restart, None if follow or asks else asked)
    from fink_dask.cluster.forkserver import loading

    with loading(is_ours=True):
        from fink_dask.cluster.choice import ALL
        from fink_dask.planning.several import joining

    log_to_stderr(verbose)  # after the import of Dask, which sets up its own logging
    wanted = asked.pop("nconsumers")
    chosen = where.resolve(all_threads=wanted == ALL)
    followed = follow_settings(follow, following, asked["until"])
    settings = TransferSettings(topics[0], outdir, kafka, follow=followed, **asked)
    choice = joining(choice, settings.outdir)
    if restart and not dry_run and not yes:
        _ask_before_restart(settings, choice)
    with failure_as_json(settings, choice, as_json):
        settings = replace(settings, nconsumers=chosen.consumers(wanted))
        if dump_schemas and dry_run:
            click.echo("fink-dask: a dry run writes no schemas: leave out --dump-schemas or --dry-run", err=True)
        if dry_run:
            return _preview(settings, choice, chosen, restart, as_json)
        if dump_schemas:
            dump_schemas_of(settings, choice)
        return _transfer(settings, choice, chosen, look, restart, profile, as_json)


def _begin_early(
    kafka: KafkaSettings, choice: TopicChoice, outdir: Path, restart: bool, asked: dict[str, Any] | None
) -> FirstLook | None:
    """Begin with what takes a while, before the rest is loaded: ask Kafka, and start what workers are forked from.

    `asked`: the settings; None where it is known beforehand that there are workers, and Kafka is not to be asked now.
    """
    from fink_dask.cluster.forkserver import loading, start_forkserver

    if asked is None or any(map(holds_predictions, choice.names)):  # whose alerts are of another topic
        start_forkserver()
        return None
    with loading(is_ours=True):
        from fink_dask.planning.ahead import is_resumed, look_ahead

    window = Window(asked["since"], asked["until"])
    looking = look_ahead(kafka, choice, window, asked["limit"], is_resumed(outdir, choice, restart))
    look = click.get_current_context().with_resource(looking)
    look.when_large(start_forkserver)
    return look


def _transfer(
    settings: TransferSettings,
    choice: TopicChoice,
    chosen: ClusterChoice,
    look: FirstLook | None,
    restart: bool,
    profile: bool,
    as_json: bool,
) -> int:
    from fink_dask.cluster.forkserver import loading

    with loading(is_ours=True):
        from fink_dask.cli.results import print_summary
        from fink_dask.running.run import run_topics
        from fink_dask.show.display import Display

    with Display(began=_BEGAN) as progress, counting(lambda: progress.whole.committed):
        outcome = run_topics(choice, settings, progress, chosen, restart, look)
    shown = outcome.profile if profile else None
    if choice.is_several:
        return print_outcome(outcome, settings.outdir, as_json, shown)
    (only,) = outcome.topics
    print_summary(only.summary, only.ledger, as_json, shown, outcome.parts)
    return only.summary.exit_code


def _ask_before_restart(settings: TransferSettings, choice: TopicChoice) -> None:
    from fink_dask.ledger.restart import check_restart
    from fink_dask.ledger.summary import summarise
    from fink_dask.planning.predicted import is_predicted

    ledgers = ledgers_of(settings, choice)
    for ledger in () if is_predicted(choice) else ledgers:  # whose alerts are of another topic than was named
        check_restart(ledger, settings.topic if choice.is_one else ledger.outdir.name)
    if ledgers:
        try:
            alerts = pluralize(sum(summarise(ledger).summary.alerts for ledger in ledgers), "alert")
        except FinkDaskError:  # a ledger that is damaged is what it is for
            alerts = "an unknown number of alerts"
        several = f"the datasets of {pluralize(len(ledgers), 'topic')}"
        what = f"the dataset of {settings.topic}" if choice.is_one else several
        try:
            click.confirm(f"Replace {what} in {settings.outdir} ({alerts})?", abort=True, err=True)
        except click.Abort as error:
            if isinstance(error.__context__, EOFError):  # out of a pipe that has no answer
                click.echo(err=True)
                words = f"{parameter('restart', True)} asks for confirmation, and nobody has answered"
                raise SettingsError(f"{words}: give {parameter('yes', True)}") from error
            raise


def _preview(
    settings: TransferSettings, choice: TopicChoice, chosen: ClusterChoice, restart: bool, as_json: bool
) -> int:
    from fink_dask.cli.results import print_outlook
    from fink_dask.cluster.jobqueue import job_script
    from fink_dask.ledger.outdir import find_ledger
    from fink_dask.planning.forecast import Machine
    from fink_dask.planning.predicted import is_predicted, with_alerts
    from fink_dask.planning.preview import lack_of_room, preview
    from fink_dask.progress.events import Doing
    from fink_dask.running.run import cores_of
    from fink_dask.show.display import Display

    machine = Machine(cores_of(settings, chosen), time.monotonic() - _BEGAN)
    if is_predicted(choice):
        with Display() as progress:
            choice, settings = with_alerts(settings, progress, restart)
    if choice.is_several:
        return preview_topics(settings, machine, choice, restart, as_json, chosen.jobs)
    script = None if chosen.jobs is None else job_script(chosen.jobs, find_ledger(settings.outdir))
    with Display() as progress:
        progress(Doing("looking at the topic, and measuring the line"))
        outlook = preview(settings, machine, restart, observe=progress)
    lack = lack_of_room([outlook], settings)
    print_outlook(outlook, settings.outdir, as_json, script, lack)
    return int(lack is not None)
