"""A profile survives the ledger, also one that an earlier version wrote; what is no profile is refused."""

from __future__ import annotations

import json

import pytest

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeCommitted
from fink_dask.progress.profile import STAGES, Profile, profile_of
from fink_dask.progress.tally import Progress


def profile_of_ranges(ranges: int) -> Profile:
    """Commit so many ranges."""
    progress = Progress()
    for number in range(ranges):
        seconds = dict.fromkeys(STAGES, 0.25) | {"poll": float(number)}
        progress(RangeCommitted("topic", OffsetRange(0, number, number + 1), 1, 10, seconds))
    return profile_of(progress.whole, progress.began)


@pytest.mark.parametrize("ranges", [0, 7])
def test_a_profile_is_read_as_it_was_written_whatever_an_earlier_version_added(ranges: int) -> None:
    profile = profile_of_ranges(ranges)
    content = json.loads(json.dumps(profile.to_json()))
    assert Profile.from_json(content) == Profile.from_json(content | {"steps": [{"until_seconds": 2.0}]}) == profile
    assert profile.stage_seconds["poll"] == sum(range(ranges))


def test_what_is_no_profile_is_refused() -> None:
    content = profile_of_ranges(2).to_json()
    for wrong in ({"work_seconds": "never"}, {"work_seconds": 1e300}, {"stage_seconds": 7},
                  {"stage_seconds": {"poll": float("nan")}}, {"ranges": None}):  # fmt: skip
        with pytest.raises(LedgerError):
            Profile.from_json(content | wrong)
