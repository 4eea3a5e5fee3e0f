"""``fink-dask schema``: show the fields of a topic's alerts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import command, connection_options, kafka_settings, log_to_stderr, option, verbose_option
from fink_dask.cli.output import expect_json, print_json, say
from fink_dask.kafka.topics import check_alert_topic, survey_of
from fink_dask.units import pluralize, printable

if TYPE_CHECKING:
    from rich.tree import Tree

    from fink_dask.avro.fields import Field
    from fink_dask.avro.schema import AvroSchema
    from fink_dask.ledger.records import Identity
    from fink_dask.planning.schemas import FoundSchemas

#: Characters shown of a field's documentation.
_DOC_CHARS = 500
#: Columns of the tree where nobody looks at it: nothing is folded.
_WIDE = 2000


@command("fink-dask schema ftransfer_ztf_2026-02-24_123456 --format arrow")
@click.argument("topic")
@option(
    "--format",
    "form",
    type=click.Choice(["tree", "avro", "arrow", "json"]),
    default="tree",
    show_default=True,
    help="tree: the fields as a tree; avro: the Avro schema as it is in Kafka; arrow: the Arrow schema of the files; "
    "json: the fields as JSON.",
)
@connection_options
@verbose_option
def schema(topic: str, form: str, verbose: bool, **connection: Any) -> int:
    """Show the fields of the alerts of TOPIC, with their types and documentation.

    If the keys of its records hold several schemas, those of the first and the last records are all shown.
    """
    from fink_dask.kafka.inspect import open_inspector
    from fink_dask.planning.schemas import show_schemas
    from fink_dask.show.display import doing

    if form == "json":
        expect_json()
    log_to_stderr(verbose)
    check_alert_topic(topic)
    kafka = kafka_settings(survey_of(topic), **connection)
    with doing("looking at the topic"), open_inspector(kafka) as inspector:
        found, identity = show_schemas(inspector, topic)
    # Those whose records can't be in the dataset come last.
    each = [(one, "") for one in found.versions.schemas] + [(misfit.schema, misfit.reason) for misfit in found.misfits]
    if form == "arrow":
        _print_arrow(found, identity)
    elif form == "json":
        _print_json(topic, found, each)
    else:
        place = _CONTAINERS if identity.framing == "container" else _PLACES[found.source]
        for number, (one, misfit) in enumerate(each, 1):
            of = f" {number} of {len(each)}" if len(each) > 1 else ""
            title = f"{topic}: schema{of} from {place}"
            # Not on stdout, which holds nothing but JSON.
            click.echo(title if form == "tree" else f"fink-dask: {title}", err=form != "tree")
            if misfit:
                say(f"  can't be in one dataset with the first: {printable(misfit)}", err=form != "tree")
            if form == "avro":
                click.echo(json.dumps(json.loads(one.text), indent=2))
            else:
                _print_tree(one)
    return 0


_CONTAINERS = "its values, which are Avro container files"
_PLACES = {"schema topic": "its schema topic", "record key": "the keys of its records"}


def _print_arrow(found: FoundSchemas, identity: Identity) -> None:
    """Print the columns of the files that a transfer without partition columns writes."""
    from fink_dask.dataset.schema_versions import file_schema, partitioning_of

    columns = file_schema(found.versions, identity, partitioning_of(identity, found.versions))
    if len(found.versions.schemas) > 1:
        say(f"fink-dask: the columns of {len(found.versions.schemas)} schemas together", err=True)
    for misfit in found.misfits:
        say(f"fink-dask: a schema that does not fit is left out: {printable(misfit.reason)}", err=True)
    for column in columns:
        click.echo(f"{column.name}: {column.type}{'' if column.nullable else ' not null'}")


def _print_json(topic: str, found: FoundSchemas, each: Sequence[tuple[AvroSchema, str]]) -> None:
    from fink_dask.avro.fields import fields_of

    schemas = [
        {"sha256": one.fingerprint, "misfit": misfit or None, "fields": [asdict(field) for field in fields_of(one)]}
        for one, misfit in each
    ]
    print_json({"topic": topic, "source": found.source, "schemas": schemas})


def _print_tree(one: AvroSchema) -> None:
    from rich.console import Console
    from rich.tree import Tree

    from fink_dask.avro.fields import count_fields, fields_of

    fields = fields_of(one)
    tree = Tree(f"{pluralize(count_fields(fields), 'field')}; ? marks those that may be null")
    _grow(tree, fields)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(tree)


def _grow(tree: Tree, fields: Sequence[Field]) -> None:
    from rich.text import Text

    for field in fields:
        words = Text(field.name, style="bold")
        words.append(f"  {field.type}{'?' if field.nullable else ''}", style="not bold cyan")
        if field.doc:
            words.append(f"  {printable(' '.join(field.doc.split()), _DOC_CHARS)}", style="not bold dim")
        _grow(tree.add(words), field.fields)
