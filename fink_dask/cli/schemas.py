"""``--dump-schemas``: the schemas of a topic, as files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fink_dask.config import TransferSettings
from fink_dask.errors import SettingsError


def dump_schemas_of(settings: TransferSettings) -> None:
    """Write the Avro schemas of a topic, and what Arrow makes of them, into the current directory.

    The first one has the topic's name alone. Others, which records have in their keys, have numbers behind it, those of
    records that can't be in the same dataset the last ones.

    Raises
    ------
    FinkDaskError
        If there is none, or a file can't be written.
    """
    import pyarrow.parquet as pq

    from fink_dask.dataset.ledger import Ledger
    from fink_dask.kafka.describe import open_inspector
    from fink_dask.transfer.inspect import inspect_topic

    with open_inspector(settings.kafka) as inspector:
        target = inspect_topic(settings, inspector, Ledger(settings.outdir), fresh=True)
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
