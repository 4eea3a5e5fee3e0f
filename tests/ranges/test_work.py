"""What is said of ranges that failed."""

from __future__ import annotations

from fink_dask.errors import BrokerUnavailableError
from fink_dask.ranges.work import failure_of


def test_nothing_is_called_safe_where_nothing_was_committed() -> None:
    failures = [BrokerUnavailableError("nothing came", "topic", 3, 17)] * 2
    said = str(failure_of(failures, 2006))
    assert "2,006" in said
    assert "topic[3] at offset 17" in said
    assert "safe" in said
    assert "safe" not in str(failure_of(failures, 0))
