"""Nobody reads more than a share, no share lies idle for long, and the last range has all of the line."""

from __future__ import annotations

from fink_dask.cluster.worker import Portions, Share, Shares


def begun(shares: Shares, here: int, ranges: int) -> list[float]:
    """Hand out so many ranges at once, as a job does; returns the share that each came with."""
    shares.divide(here, ranges)
    parts = []
    for offset_range in range(ranges):
        parts.append(shares.share.part)
        shares.begin(offset_range)
    return parts


def test_what_is_handed_out_at_once_never_adds_up_to_more_than_all() -> None:
    for here, ranges, parts in ((2, 4, [0.5] * 4), (16, 3, [1 / 3] * 3), (1, 2, [1.0] * 2), (0, 2, [1.0] * 2)):
        assert begun(Shares(), here, ranges) == parts


def test_the_ranges_that_are_left_get_the_share_of_those_that_have_ended() -> None:
    shares = Shares()
    begun(shares, 3, 3)
    for offset_range, worker in enumerate("abc"):
        shares.see(offset_range, worker)
    assert shares.divide(3) == {"a", "b", "c"}, "each is told once, as it may have begun with an older share"
    assert shares.divide(3) == frozenset()
    shares.end(0)
    assert shares.divide(3) == {"b", "c"}
    assert shares.share == Share(2, 0.5)
    shares.end(2)
    assert shares.divide(3) == {"b"}
    assert shares.share.part == 1


def test_those_that_read_have_less_before_others_begin() -> None:
    shares = Shares()
    begun(shares, 4, 1)
    shares.see(0, "a")
    shares.divide(4)
    assert shares.share.part == 1
    assert shares.divide(4, coming=3) == {"a"}
    assert shares.share.part == 0.25


def test_workers_that_have_not_come_yet_have_no_share() -> None:
    shares = Shares()
    assert begun(shares, 2, 16) == [0.5] * 16
    for offset_range, worker in ((0, "a"), (1, "b")):
        shares.see(offset_range, worker)
    assert shares.divide(2) == {"a", "b"}
    assert shares.share.part == 0.5
    assert shares.divide(3) == {"a", "b"}
    assert shares.share.part == 1 / 3


def test_several_ranges_of_a_process_have_one_share() -> None:
    shares = Shares()
    begun(shares, 2, 4)
    for offset_range in range(4):
        shares.see(offset_range, "ab"[offset_range % 2])
    shares.divide(2)
    assert shares.share.part == 0.5
    shares.end(0)
    assert shares.divide(2) == frozenset()


def test_a_range_that_waited_for_a_worker_brings_no_share_that_is_out_of_date() -> None:
    portions = Portions()
    portions.enter("run", Share(1, 0.5))
    portions.take("run", Share(3, 0.25))
    portions.enter("run", Share(2, 1.0))
    portions.take("run", Share(2, 1.0))
    assert portions.part == 0.25
    portions.leave("run")
    assert portions.part == 0.25
    portions.leave("run")
    portions.take("run", Share(4, 0.1))
    assert portions.part == 1.0, "the run has no ranges here any more"


def test_of_two_runs_on_a_worker_none_reads_more_than_its_share() -> None:
    portions = Portions()
    portions.enter("one", Share(1, 0.5))
    portions.enter("other", Share(1, 0.1))
    assert portions.part == 0.1
    portions.leave("other")
    assert portions.part == 0.5
