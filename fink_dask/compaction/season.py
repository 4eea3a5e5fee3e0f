"""Compact the datasets of several topics, each by itself; what one topic of the new ones holds, no other gets again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from fink_dask.avro.schema import field_type
from fink_dask.compaction.compact import Caller, Compacted, compact_dataset
from fink_dask.compaction.groups import Form
from fink_dask.compaction.merge import Elsewhere, check_identifier
from fink_dask.compaction.task import Merger
from fink_dask.compaction.workspace import is_settled
from fink_dask.dataset.schema_versions import dataset_schema
from fink_dask.errors import FinkDaskError, LedgerError, SettingsError, StorageError
from fink_dask.ledger.lease import is_held
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import datasets_in, find_ledger


def compact_season(
    sources: Sequence[Ledger], newdir: Path, form: Form, merger: Merger, caller: Caller
) -> dict[str, Compacted | FinkDaskError]:
    """Compact each of several topics, or go on with it; returns what became of each, in their order.

    An alert is left out of a topic only where another topic, whose new dataset is there, has it: so the new datasets
    never lack one, whatever fails or is killed, and never hold one twice. What is there already comes first, then what
    was begun, then the topics in the order of their names, as `fink_dask.open_dataset` takes them.
    Raises SettingsError if a topic has no such identifier, or one of another type than the others.
    """
    targets = {source.outdir.name: find_ledger(newdir / source.outdir.name, joins=True) for source in sources}
    elsewhere = None
    if form.unique is not None:
        _check_identifiers(sources, form.unique)
        elsewhere = Elsewhere(form.unique)
        for ledger in datasets_in(newdir):
            targets.setdefault(ledger.outdir.name, ledger)  # of a topic whose old dataset is gone
    found: dict[str, Compacted | FinkDaskError] = {}
    of_name = {source.outdir.name: source for source in sources}
    for name, target in sorted(targets.items(), key=lambda each: (_how_far(each[1]), each[0])):
        try:
            if elsewhere is not None and not is_settled(target):
                _check_is_alone(other for other in targets.values() if other != target)
            if name in of_name:
                found[name] = compact_dataset(of_name[name], target, form, merger, caller, elsewhere)
        except FinkDaskError as error:
            found[name] = error
        if elsewhere is not None and target.exists():
            elsewhere.add(target)
    return {name: found[name] for name in of_name}


def _how_far(target: Ledger) -> int:
    return 0 if target.exists() else 1 if target.compaction_path.exists() else 2


def _check_identifiers(sources: Sequence[Ledger], name: str) -> None:
    """Refuse what can't tell the alerts of all topics apart, before anything is written."""
    kinds: dict[pa.DataType, str] = {}
    for source in sources:
        with suppress(LedgerError, StorageError):  # which its own compaction will say
            schema = dataset_schema(source)
            try:
                check_identifier(schema, name)
            except SettingsError as error:
                raise SettingsError(f"{source.outdir.name}: {error.line}") from error
            kinds.setdefault(field_type(schema, name), source.outdir.name)
    if len(kinds) > 1:
        words = ", and ".join(f"{kind} in {topic}" for kind, topic in kinds.items())
        raise SettingsError(f"--unique {name[:80]}: it is {words}, so that it tells no alerts of both apart")


def _check_is_alone(others: Iterable[Ledger]) -> None:
    """Refuse to go on while another topic may be getting the same alerts."""
    for other in others:
        if is_held(other):
            raise StorageError(f"{other.outdir} is being written just now: run this again when that has ended")
        if not other.exists() and is_settled(other):
            raise StorageError(f"{other.outdir} is all but done: run this again until it is")
