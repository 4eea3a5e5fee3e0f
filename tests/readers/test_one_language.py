"""Columns have the same dotted names wherever they are chosen: in a transfer, a table, a catalog, and light curves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fink_dask
from fink_dask.dataset.surveys import expression, find_fields
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import fill_topic
from tests.harness.topics import own_topic

pytestmark = [pytest.mark.readers, pytest.mark.usefixtures("shared_dask")]

#: Of each kind: what a light curve needs, a class, and a place.
COLUMNS = {
    AlertKind.ZTF_LIGHT: "objectId,candid,jd,fid,magpsf,sigmapsf,ra,dec,finkclass",
    AlertKind.ZTF_FULL: "objectId,candidate.candid,candidate.jd,candidate.fid,candidate.magpsf,candidate.ra,"
    "candidate.dec,finkclass",
    AlertKind.LSST_LIGHT: "diaObjectId,diaSourceId,midpointMjdTai,band,scienceFlux,ra,dec,pred.main_label_classifier",
    AlertKind.LSST_FULL: "diaSource.diaObjectId,diaSource.diaSourceId,diaSource.midpointMjdTai,diaSource.band,"
    "diaSource.psfFlux,diaSource.ra,diaSource.dec,pred.main_label_classifier",
}


@pytest.fixture(params=list(COLUMNS), ids=lambda kind: kind.value)
def topic(request: pytest.FixtureRequest, kafka: Any) -> Iterator[tuple[str, str]]:
    kind: AlertKind = request.param
    with own_topic(kafka.bootstrap_servers, kind) as name:
        fill_topic(kafka.bootstrap_servers, name, kind, 30, partitions=1)
        yield name, COLUMNS[kind]


def test_the_same_words_choose_the_same_columns_everywhere(topic: tuple[str, str], kafka: Any, tmp_path: Path) -> None:
    name, columns = topic
    whole, some = str(tmp_path / "whole"), str(tmp_path / "some")
    for outdir, more in ((whole, ()), (some, ("--columns", columns))):
        done = run_cli(*transfer_arguments(kafka, name, outdir, *more))
        assert done.returncode == 0, done.stderr
    names = columns.split(",")
    for outdir, more in ((whole, ("--columns", columns)), (some, ())):
        table = tmp_path / f"{Path(outdir).name}.csv"
        done = run_cli("export", outdir, str(table), *more, "--json")
        assert done.returncode == 0, done.stderr
        exported = [each for each in json.loads(done.stdout)["columns"] if not each.startswith("kafka_")]
        assert sorted(exported) == sorted(names)
    rows = [(tmp_path / f"{each}.csv").read_text().splitlines() for each in ("whole", "some")]
    assert len(rows[0]) == len(rows[1]) == 31
    done = run_cli("export-hats", whole, str(tmp_path / "catalog"), "--columns", columns, "--json")
    assert done.returncode == 0, done.stderr
    fields = find_fields(fink_dask.open_dataset(some).schema)
    assert {fields.paths[role] for role in ("object", "source", "time", "band", "value", "ra", "dec")} <= set(names)
    numbers = fink_dask.open_dataset(some).to_table(columns={"object": expression(fields.paths["object"])})["object"]
    name_of_one = next(str(each) for each in numbers.to_pylist() if each)
    # Light curves of what was chosen are those of the whole, as far as that goes.
    alerts = [
        fink_dask.light_curve(outdir, name_of_one)
        .filter(expression("kind") == "alert")
        .select(["mjd", "band", "value"])
        for outdir in (whole, some)
    ]
    assert alerts[0].equals(alerts[1])
    for command in (("export", whole, str(tmp_path / "no.csv")), ("export-hats", whole, str(tmp_path / "no"))):
        refused = run_cli(*command, "--columns", f"{names[1]}x")
        assert refused.returncode == 2
        assert f"{names[1]}x" in refused.stderr
