"""``--dump-schemas``: the schemas of a topic, as files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.config import OUTFORMATS, TransferSettings
from fink_dask.errors import BrokerError, SchemaError, SettingsError

if TYPE_CHECKING:
    from fink_dask.kafka.inspect import Inspector
    from fink_dask.kafka.topics import TopicChoice


def dump_schemas_of(settings: TransferSettings, choice: TopicChoice) -> None:
    """Write the Avro schemas of each topic, and what Arrow makes of them, into the current directory.

    The first one is named after the topic alone. Others, which records have in their keys, are numbered, and those of
    records that can't be in the same dataset come last. Where several topics are meant, one without a schema is
    reported, and the others go on.

    Raises
    ------
    FinkDaskError
        If the only topic has none, or a file can't be written.
    """
    from fink_dask.kafka.inspect import open_inspector
    from fink_dask.planning.preview import topics_now
    from fink_dask.planning.topics import settings_of

    with open_inspector(settings.kafka) as inspector:
        if not choice.is_several:
            _dump(settings, inspector)
            return
        for topic in topics_now(choice, inspector):
            try:
                _dump(settings_of(settings, choice, topic), inspector)
            except (BrokerError, SchemaError) as error:
                click.echo(f"fink-dask: no schema of {topic} was written: {error}", err=True)


def _dump(settings: TransferSettings, inspector: Inspector) -> None:
    import pyarrow.parquet as pq

    from fink_dask.ledger.ledger import Ledger
    from fink_dask.planning.schemas import inspect_topic

    # All schemas, also of a topic that has too many of them for the files that are asked for.
    target = inspect_topic(replace(settings, outformat=OUTFORMATS[0]), inspector, Ledger(settings.outdir), fresh=True)
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
    click.echo(f"schemas written to {', '.join(map(str, avro_paths))} and {arrow_path}", err=True)
