"""A directory of datasets is told from a dataset, and the sum over topics is never better than the worst of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.topics import TopicChoice
from fink_dask.ledger.outdir import check_for_several, check_name, datasets_in, find_datasets, find_ledger, total_of
from fink_dask.ledger.summary import State, Summary
from fink_dask.planning.several import joining
from tests.harness.ledgers import IDENTITY, make_ledger, make_plan


def make_dataset(outdir: Path) -> None:
    """Make a dataset with a plan."""
    make_ledger(outdir, make_plan([OffsetRange(0, 0, 1)]))


def test_datasets_are_found_by_their_ledgers_and_nothing_else_is(tmp_path: Path) -> None:
    assert datasets_in(tmp_path / "nothing") == []
    for name in ("b", "a"):
        make_dataset(tmp_path / "night" / name)
    (tmp_path / "night" / "c.fink").mkdir()
    (tmp_path / "night" / "d.fink").touch()
    make_dataset(tmp_path / "night" / "a.fink-old-12345678" / "a")
    assert [ledger.outdir.name for ledger in datasets_in(tmp_path / "night")] == ["a", "b"]


def test_what_one_topic_and_several_make_of_a_directory(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one")
    make_dataset(tmp_path / "many" / "a")
    alone = TopicChoice(("b",))
    assert joining(alone, tmp_path / "one") == joining(alone, tmp_path / "new") == alone
    check_for_several(tmp_path / "many")
    check_for_several(tmp_path / "new")
    joined = joining(alone, tmp_path / "many")
    assert joined.is_several
    assert joined.names == ("b",)
    with pytest.raises(LedgerError, match="many/a"):
        joining(TopicChoice((IDENTITY.topic,)), tmp_path / "many")
    with pytest.raises(LedgerError, match=r"mv one one\.fink nights; fink-dask season"):
        check_for_several(tmp_path / "one")


def test_a_dataset_may_be_right_below_the_root_of_a_file_system() -> None:
    assert find_ledger(Path("/no-such-dataset")).path == Path("/no-such-dataset.fink")
    with pytest.raises(LedgerError):
        find_datasets(Path("/no-such-dataset"))


@pytest.mark.parametrize("topic", ["a.fink", "a.fink-old-12345678", ".fink"])
def test_no_dataset_takes_the_place_of_a_ledger(topic: str) -> None:
    with pytest.raises(StorageError, match=r"\.fink"):
        check_name(topic)
    check_name("a.fin_k")


@pytest.mark.parametrize(
    ("states", "worst", "exit_code"),
    [
        ([], "complete", 0),
        (["complete", "complete"], "complete", 0),
        (["complete", "partial"], "partial", 3),
        (["partial", "interrupted", "complete"], "interrupted", 1),
        (["partial", "failed", "interrupted"], "failed", 1),
    ],
)
def test_the_worst_state_counts_and_alerts_add_up(states: list[State], worst: State, exit_code: int) -> None:
    total = total_of([Summary(str(n), state, alerts=n, run_alerts=1) for n, state in enumerate(states)])
    assert (total.state, total.exit_code) == (worst, exit_code)
    assert (total.alerts, total.run_alerts) == (sum(range(len(states))), len(states))
