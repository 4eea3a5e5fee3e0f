"""Of transfers in a user's own process nothing is left, in whatever order they begin and end."""

from __future__ import annotations

import copy
import logging
import os
import sys

import dask
import distributed
import pytest

from fink_dask.cluster.leftovers import dask_configuration, variables
from fink_dask.cluster.local import local_cluster

NAME = "FINK_DASK_TEST_LEFTOVER"
PAUSE, PRELOAD = "distributed.worker.memory.pause", "distributed.worker.preload"


def test_transfers_that_overlap_leave_dasks_configuration_as_it_was() -> None:
    with dask.config.set({PRELOAD: ["mine"], "distributed.worker.memory.pause": 0.7}):
        before = copy.deepcopy(dask.config.config)
        first, second = (dask_configuration({PAUSE: False}, is_whole=True) for _ in range(2))
        first.__enter__()
        assert (dask.config.get(PAUSE), dask.config.get(PRELOAD)) == (False, [])
        second.__enter__()
        first.__exit__(None, None, None)
        assert dask.config.get(PAUSE) is False
        second.__exit__(None, None, None)
        assert dask.config.config == before
    assert dask.config.merge(*dask.config.defaults)["distributed"]["worker"]["memory"]["pause"] is not False


@pytest.mark.commands
def test_clusters_that_overlap_are_nobodys_default_and_leave_no_scheduler_and_no_directory_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, path = copy.deepcopy(dask.config.config), list(sys.path)
    handler, level = logging.StreamHandler(), 7
    handler.setLevel(level)
    monkeypatch.setattr(logging.getLogger("distributed"), "handlers", [handler])
    first, second = (local_cluster(1, 1, "127.0.0.1:0") for _ in range(2))
    first.__enter__()
    second.__enter__()
    with pytest.raises(ValueError, match="No client"):
        distributed.default_client()
    first.__exit__(None, None, None)
    assert handler.level == logging.CRITICAL, "the second one would be heard"
    second.__exit__(None, None, None)
    assert dask.config.config == before
    assert (sys.path, handler.level) == (path, level)


def test_transfers_that_overlap_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    kept = variables([NAME])
    first, second = kept.while_changed(), kept.while_changed()
    first.__enter__()
    os.environ[NAME] = "1"
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ[NAME] == "1"
    second.__exit__(None, None, None)
    assert NAME not in os.environ


def test_the_link_of_a_proxy_stays_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    link = "/user/{JUPYTERHUB_USER}/proxy/{port}/status"
    with dask.config.set({"distributed.dashboard.link": link}):
        with dask_configuration({}, is_whole=True):
            assert "JUPYTERHUB_USER" not in dask.config.get("distributed.dashboard.link")
        monkeypatch.setenv("JUPYTERHUB_USER", "ada")
        with dask_configuration({}, is_whole=True):
            assert dask.config.get("distributed.dashboard.link") == link
