"""``--dump-schemas``: the schemas of a topic, as files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fink_dask.config import TransferSettings
from fink_dask.errors import SettingsError


def dump_schemas_of(settings: TransferSettings) -> None:
    """Write the Avro schema of a topic, and what Arrow makes of it, into the current directory.

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
    avro_path = Path(f"avro_schema_{settings.topic}.json")
    arrow_path = Path(f"arrow_schema_{settings.topic}.metadata")
    try:
        avro_path.write_text(json.dumps(json.loads(target.schema.text), indent=4), encoding="utf-8")
        pq.write_metadata(target.schema.arrow, arrow_path)
    except OSError as error:
        raise SettingsError(f"can't write {error.filename}: {error.strerror}") from error
    click.echo(f"schemas written to {avro_path} and {arrow_path}", err=True)
