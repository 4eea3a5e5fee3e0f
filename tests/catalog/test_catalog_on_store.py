"""A catalog on an object store: readers find all of it or nothing, whatever is killed as it is sent."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path

import pytest

from fink_dask.catalog.hats import export_hats, unfinished
from fink_dask.errors import SettingsError
from fink_dask.store.location import locate
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.harness.catalogs import same_rows
from tests.harness.nights import add_night
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.store_crash import killed_after, run_on_store

pytestmark = pytest.mark.stores


def _dataset(place: Path) -> Path:
    kind = AlertKind.ZTF_LIGHT
    add_night(place, avro_schema(kind), list(made_up_alerts(kind, 60)), "ftransfer_ztf_2026-11-01_1")
    return place


def _folder(store: ObjectStore, place: Path) -> Path:
    """Where the store keeps what is at a place."""
    return store.folder / "data" / BUCKET / str(place).removeprefix(f"s3://{BUCKET}/")


def test_a_catalog_of_a_dataset_on_a_store_is_the_same_there_as_in_a_directory_and_does_not_grow(
    object_store: ObjectStore, store_url: str, tmp_path: Path
) -> None:
    outdir, catalog = _dataset(locate(store_url)), locate(store_url).with_name("catalog")
    assert export_hats(outdir, catalog) == export_hats(outdir, tmp_path / "catalog")
    assert same_rows(_folder(object_store, catalog), tmp_path / "catalog")
    assert unfinished(catalog) == []
    with pytest.raises(SettingsError, match="grows"):
        export_hats(outdir, catalog)
    with pytest.raises(SettingsError, match="inside"):
        export_hats(outdir, outdir / "catalog")


def test_a_catalog_whose_sending_was_killed_is_none_until_all_of_it_is_sent(
    object_store: ObjectStore, store_url: str, tmp_path: Path
) -> None:
    outdir = _dataset(locate(store_url))
    export_hats(outdir, tmp_path / "catalog")
    for after in count(1, 9):
        catalog = locate(store_url).with_name(f"catalog-{after}")
        killed = run_on_store(object_store, killed_after, after, export_hats, outdir, catalog) == -signal.SIGKILL
        if not killed:
            break
        folder = _folder(object_store, catalog)
        assert unfinished(catalog) or not catalog.exists()
        assert not (folder / "collection.properties").exists() or same_rows(folder, tmp_path / "catalog")
        export_hats(outdir, catalog)
        assert same_rows(folder, tmp_path / "catalog")
        assert unfinished(catalog) == []
    assert after > 10
