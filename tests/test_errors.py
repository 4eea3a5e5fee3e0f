"""An error names parameters, which the command line and Python each spell as their users type them."""

from __future__ import annotations

import pickle

import pytest

from fink_dask.api.settings import errors_in_python
from fink_dask.errors import BrokerError, FinkDaskError, LedgerError, SettingsError, parameter

RESTART = f"use another {parameter('outdir')}, or {parameter('restart', True)}"


@pytest.mark.parametrize(
    ("message", "typed", "called"),
    [
        (f"{parameter('limit')} is 0", "--limit is 0", "limit is 0"),
        (RESTART, "use another --outdir, or --restart", "use another outdir, or restart=True"),
        (parameter("on_loss", "continue"), "--on-loss continue", "on_loss='continue'"),
        (parameter("schema", "FILE"), "--schema FILE", "schema=FILE"),
        (f"give {parameter('password')}", "give FINK_DASK_PASSWORD", "give password"),
        (f"{parameter('limit')}, not {parameter('follow')}", "--limit, not --follow", "limit, not --follow"),
        # These name no parameter: a command to type, and a path.
        ("type fink-dask register --survey ztf", "type fink-dask register --survey ztf", None),
        ("/data/run--limit 5/x is a file", "/data/run--limit 5/x is a file", None),
    ],
)
def test_a_user_reads_what_they_would_type(message: str, typed: str, called: str | None) -> None:
    error = pickle.loads(pickle.dumps(BrokerError(message, "topic", 3, 7)))
    assert str(error) == f"topic[3] at offset 7: {typed}"
    with pytest.raises(BrokerError) as caught, errors_in_python():
        raise error
    assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value)))
    assert str(caught.value) == f"topic[3] at offset 7: {called or typed}"


def test_an_error_within_another_is_spelled_once_and_by_whoever_shows_it() -> None:
    inner = LedgerError(RESTART, "topic")
    outer = SettingsError(f"it failed: {inner.line}")
    assert outer.parameters == ("outdir", "restart")
    assert str(outer) == "it failed: topic: use another --outdir, or --restart"


@pytest.mark.parametrize("hostile", ["\0", "\0\0\0", "a\0limit", "\0=\0", "\0--\0x"])
def test_a_text_from_outside_breaks_no_error(hostile: str) -> None:
    assert "the record holds" in str(FinkDaskError(f"the record holds {hostile}"))


def test_a_text_from_outside_moves_no_cursor_and_begins_no_line() -> None:
    error = LedgerError("damaged: a\n\x1b[31mb\r.parquet", "topic", 3)
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert str(each).isprintable()
        assert "[31mb" in str(each)
        assert each.message == error.message
