"""One range of a process decodes at a time, a slow one lets others in, and none keeps the turn when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from fink_dask.errors import InterruptedTransferError
from fink_dask.ranges.slots import DecodeSlot, DecodeSlots
from tests.harness.oracle import wait_for
from tests.harness.topics import PATIENCE_S


def is_free(turns: DecodeSlots, times: int = 1) -> bool:
    """Tell whether the turn can be taken so many times, and not once more."""
    taken = 0
    with suppress(InterruptedTransferError):
        while True:
            turns.take(lambda: True)
            taken += 1
    for _ in range(taken):
        turns.give()
    return taken == times


@pytest.mark.parametrize("turns", [1, 2])
def test_no_more_than_the_turns_are_inside_at_once_and_everybody_comes_in(turns: int) -> None:
    shared, lock = DecodeSlots(turns), threading.Lock()
    inside, most, entered = 0, 0, 0
    full = threading.Event()

    def decode(_: int) -> None:
        nonlocal inside, most, entered
        with DecodeSlot(shared) as turn:
            for _ in range(20):
                with lock:
                    inside, entered = inside + 1, entered + 1
                    most = max(most, inside)
                    if inside == turns:
                        full.set()
                full.wait(10)
                with lock:
                    inside -= 1
                with turn.given_away():
                    pass

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(decode, range(6)))
    assert (most, entered) == (turns, 120)
    assert is_free(shared, turns)


def test_another_range_comes_in_while_the_turn_is_given_away_and_only_then() -> None:
    shared, asked, came_in, may_leave = DecodeSlots(1), threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        asked.set()
        with DecodeSlot(shared):
            came_in.set()
            may_leave.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        with DecodeSlot(shared) as turn:
            waiting = pool.submit(other)
            assert asked.wait(PATIENCE_S)
            assert not came_in.is_set()
            with turn.given_away():
                assert came_in.wait(PATIENCE_S)
                may_leave.set()
            assert is_free(shared, 0)
        waiting.result(PATIENCE_S)
    assert is_free(shared)


def stopped_after(looks: int) -> Callable[[], bool]:
    left = [looks]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return should_stop


@pytest.mark.parametrize("looks", [0, 2])
def test_a_stop_ends_the_waiting_and_the_turn_stays_with_who_has_it(looks: int) -> None:
    shared = DecodeSlots(1)
    with DecodeSlot(shared):
        with pytest.raises(InterruptedTransferError), DecodeSlot(shared, stopped_after(looks)):
            pytest.fail("it came in")
        assert is_free(shared, 0), "the turn of another was given away"
    assert is_free(shared)


def test_a_stop_while_the_turn_is_given_away_gives_nothing_back_that_it_has_not() -> None:
    shared, may_leave = DecodeSlots(1), threading.Event()

    def give_away_and_be_stopped(pool: ThreadPoolExecutor) -> None:
        came_in = threading.Event()

        def other() -> None:
            with DecodeSlot(shared):
                came_in.set()
                may_leave.wait(PATIENCE_S)

        with DecodeSlot(shared, stopped_after(0)) as turn, turn.given_away():
            pool.submit(other)
            assert came_in.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(InterruptedTransferError):
            give_away_and_be_stopped(pool)
        assert is_free(shared, 0), "the turn of another was given away"
        may_leave.set()
        wait_for(lambda: is_free(shared), "the other to give its turn back")


@pytest.mark.parametrize("given_away", [False, True])
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_range_that_fails_gives_its_turn_back(failure: type[BaseException], given_away: bool) -> None:
    shared = DecodeSlots(1)

    def fail() -> None:
        with DecodeSlot(shared) as turn:
            if given_away:
                with turn.given_away():
                    raise failure
            raise failure

    for _ in range(2):
        with pytest.raises(failure):
            fail()
        assert is_free(shared)


def test_without_others_it_is_always_everybodys_turn() -> None:
    with DecodeSlot() as one, DecodeSlot(should_stop=lambda: True), one.given_away(), DecodeSlot():
        pass


def test_whoever_has_waited_longest_comes_in_next() -> None:
    shared, order, may_leave = DecodeSlots(1), [], threading.Event()

    def decode(number: int) -> None:
        with DecodeSlot(shared):
            order.append(number)
            may_leave.wait(PATIENCE_S)

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(decode, number)
            wait_for(lambda number=number: order or len(shared._queue) == number, "it to wait")
            wait_for(lambda number=number: len(shared._queue) == number, "it to wait")
        may_leave.set()
    assert order == list(range(8))
