"""What a user reads while a transfer runs: on wide and narrow terminals, in a file, over a slow or cut line."""

from __future__ import annotations

import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.summary import Lag
from fink_dask.progress.events import Doing, Event, Note, RangeCommitted, RangeFailed, TopicLooked
from fink_dask.show import display
from fink_dask.show.display import Display, Part, doing, flow
from fink_dask.units import lasting
from tests.harness.cli import environment
from tests.harness.events import Clock, received, started
from tests.harness.oracle import wait_for
from tests.harness.topics import PATIENCE_S

PARTS = [OffsetRange(number, 0, 4000) for number in range(4)]
SIZE = 1040


class Screen:
    """A display whose clock is set by hand, and what it draws."""

    def __init__(self, width: int = 80) -> None:
        self.clock = Clock()
        console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
        self.display = Display(console, self.clock)
        self.width = width

    def tell(self, *events: Event) -> None:
        for event in events:
            self.display.progress(event)

    @property
    def lines(self) -> list[str]:
        """What stands there, without spinner and bar."""
        console = Console(file=io.StringIO(), force_terminal=True, width=self.width, color_system=None)
        console.print(self.display._live.get_renderable())
        assert isinstance(console.file, io.StringIO)
        drawn = console.file.getvalue().splitlines()
        assert all(len(line) <= self.width for line in drawn)
        return [" ".join(line.lstrip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ").replace("━", "").split()).lstrip("╸╺ ") for line in drawn]


def run_for(screen: Screen, seconds: int, per_second: int = 240) -> None:
    """Let alerts arrive at a rate, in the first two ranges by turns, and be read and committed later."""
    screen.tell(received(PARTS[0], 0, SIZE), received(PARTS[1], 0, SIZE))
    counts = [0, 0]
    for second in range(seconds):
        screen.clock.now += 1
        counts[second % 2] += per_second
        screen.tell(*(received(PARTS[turn], counts[turn], SIZE, quiet_s=turn == second % 2) for turn in (0, 1)))


def test_from_the_first_second_on_a_terminal_says_what_goes_on() -> None:
    screen = Screen()
    (first,) = screen.lines
    assert "Kafka" in first
    screen.clock.now += 4
    assert screen.lines == [f"{first} for 4 s"]
    screen.tell(Doing("starting workers"))
    assert screen.lines == ["starting workers"]
    screen.tell(started(16_000, raw_bytes=16_600_000))
    assert screen.lines == ["0 % connecting", "0.0 kB received · 0 of 16,000 alerts committed"]
    screen.tell(received(PARTS[0], 0))
    waiting = screen.lines[0]
    assert waiting.startswith("0 % waiting")
    screen.clock.now += 5
    assert screen.lines[0] == f"{waiting} for 5 s"


def test_received_and_committed_stand_side_by_side_with_the_time_left() -> None:
    screen = Screen()
    screen.tell(started(16_000, raw_bytes=16_600_000))
    run_for(screen, 20)
    assert screen.lines == ["30 % 46 s left", "5.0 MB received (249.6 kB/s) · 0 of 16,000 alerts committed"]
    screen.tell(RangeCommitted("t", PARTS[0], 4000, 4000 * SIZE, {}))
    assert "4,000 of 16,000 alerts committed" in screen.lines[1]
    assert screen.lines[0].startswith("40 %"), "the rest of the range has come as well"


def test_a_slow_line_is_told_by_how_long_ago_something_came_and_a_cut_one_by_how_long_it_is_waited_for() -> None:
    screen = Screen()
    screen.tell(started(16_000, timeout_s=300))
    run_for(screen, 20)
    seen = []
    for _ in range(16):
        screen.clock.now += 1
        seen.append(screen.lines[0])
    assert seen[0] == "30 % 45 s left", "what comes next is on its way"
    assert all(line.endswith(f"last response {n} s ago") for n, line in enumerate(seen[2:9], 3))
    assert [" s left" in line for line in seen[2:9]] == [True] * 3 + [False] * 4, "what is overdue tells no time"
    assert [line.partition(" · ")[0] for line in seen[11:]] == [f"30 % nothing for {n} s" for n in range(12, 17)]
    first, second = screen.lines
    assert all(part in first for part in ("30 %", "16 s", "4 min 44 s"))
    assert all(part in second for part in ("5.0 MB", "0 of 16,000 alerts", "kept"))
    assert "/s" not in second
    screen.tell(received(PARTS[0], 2500, SIZE))
    assert "nothing" not in " ".join(screen.lines)


def test_what_comes_again_is_not_counted_twice() -> None:
    screen = Screen(120)
    screen.tell(started(16_000))
    run_for(screen, 20)
    screen.tell(RangeFailed("t", PARTS[0]), received(PARTS[0], 0, SIZE, attempt="second"))
    assert screen.lines[0].startswith("15 %")
    assert "2.5 MB" in screen.lines[1]
    screen.tell(*(received(part, 9000, SIZE, attempt="second") for part in PARTS))
    assert screen.lines[0].startswith("100 %")
    assert "writing" in screen.lines[0]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_no_word_is_cut_and_what_matters_stays_however_narrow_a_terminal_is(width: int) -> None:
    screen = Screen(width)
    screen.tell(started(16_000), started(10, topic="other"))
    run_for(screen, 20)
    screen.clock.now += 16
    words = " ".join(screen.lines)
    for part in ("29 %", "16 s", "5.0 MB", "0 of 16,010 alerts", "kept"):
        assert part in words, words
    screen.tell(TopicLooked("t", 16_000, Lag(100.0, {0: 1200, 1: 10}, 33.0, 98_000), 12, 48))
    words = " ".join(screen.lines)
    for part in ("16 s", "lag 1,210", "12 s", "48 s", "33 alerts/s"):
        assert part in words, words


def test_over_a_cut_line_a_lag_is_said_to_be_of_a_while_ago() -> None:
    screen = Screen(120)
    screen.tell(started(0), TopicLooked("t", 0, Lag(100.0, {0: 0}), 8, 60))
    assert all(part in screen.lines[0] for part in ("1 min", "lag 0", "8 s"))
    screen.clock.now += 14
    assert "14 s ago" in screen.lines[0], "nobody can tell what has come meanwhile"


def test_nothing_is_called_all_committed_while_more_is_known_to_be_there() -> None:
    screen = Screen(120)
    screen.tell(started(0), TopicLooked("t", 0, Lag(100.0, {0: 0}), 1, 60))
    assert "all committed" in screen.lines[0]
    screen.tell(TopicLooked("t", 0, Lag(100.0, {0: 1}), 1, 60))
    assert "lag 1" in screen.lines[0]
    assert "all committed" not in screen.lines[0]


def test_a_file_gets_a_whole_line_now_and_then_also_while_nothing_comes() -> None:
    clock, out = Clock(), io.StringIO()
    display = Display(Console(file=out, force_terminal=False, width=40), clock)

    def next_line(seconds: float) -> str:
        before = out.getvalue()
        clock.now += seconds
        wait_for(lambda: out.getvalue() != before, "a line")
        return out.getvalue().removeprefix(before)

    with display:
        assert next_line(11).endswith(" for 11 s\n")
        display.progress(started(16_000, timeout_s=60))
        display.progress(received(PARTS[0], 0))
        assert re.search("11 s.*49 s.*\n$", next_line(11))
        display.progress(received(PARTS[0], 2000))
        line = next_line(12)
    # The one place where a whole line of a log is pinned.
    assert line == (
        "12 %: 2.0 MB received (166.7 kB/s), 0 of 16,000 alerts committed, 1 min 13 s left, last response 12 s ago\n"
    )


def test_a_long_way_is_said_in_days_and_none_is_said_without_end() -> None:
    screen = Screen(120)
    screen.tell(started(100_000_000))
    run_for(screen, 20, per_second=200)
    assert "5 d 18 h left" in screen.lines[0]
    screen.tell(started(100_000_000_000))
    assert "more than 30 d" in screen.lines[0]
    assert lasting(59) == "59 s"
    assert lasting(72) == "1 min 12 s"
    assert lasting(7200) == "2 h"


@pytest.mark.parametrize(
    ("parts", "width", "lines"),
    [
        ([], 10, []),
        ([Part("one"), Part("two")], 9, ["one, two"]),
        ([Part("one"), Part("two")], 7, ["one", "two"]),
        ([Part("one"), Part("longer than it", False), Part("two")], 9, ["one, two"]),
        ([Part("longer than it")], 5, ["longer than it"]),
    ],
)
def test_parts_are_put_into_lines_whole(parts: list[Part], width: int, lines: list[str]) -> None:
    assert flow(parts, width, ", ") == lines


def test_notes_from_other_threads_do_not_end_a_transfer() -> None:
    screen = Screen()
    screen.tell(started(4000 * 500))
    over = threading.Event()

    def draw() -> None:
        while not over.is_set():
            assert screen.lines

    with ThreadPoolExecutor(2) as pool:
        drawing = pool.submit(draw)
        noting = pool.submit(screen.tell, *[Note("a note")] * 100)
        for number in range(300):
            screen.tell(received(OffsetRange(number, 0, 4000), 10))
        for number in range(300):
            screen.tell(RangeCommitted("t", OffsetRange(number, 0, 4000), 4000, 10, {}))
        over.set()
        assert (drawing.result(), noting.result()) == (None, None)


def test_a_command_that_waits_says_so_and_for_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "_LINE_S", 0.05)
    monkeypatch.setattr(display, "_LOOK_S", 0.01)
    said: list[str] = []

    def has_been_said() -> bool:
        said.append(capsys.readouterr().err)
        return "looking at the topic" in "".join(said)

    with doing("looking at the topic"):
        wait_for(has_been_said, "a line")


def test_what_is_said_in_a_notebook_stays_also_where_it_is_said_while_the_bar_is_drawn() -> None:
    cell = """\
import time
from fink_dask.progress.events import Note
from fink_dask.show import display
display._DRAWN = 100
with display.Display() as progress:
    for number in range(100):
        progress(Note(f"note {number}"))
        time.sleep(0.01)"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    # Each drawing is a few messages. Jupyter drops what comes to more than a thousand that a busy reader has not taken,
    # and nbclient waits for it as long as for the cell: there are fewer.
    client = NotebookClient(notebook, timeout=PATIENCE_S, iopub_timeout=PATIENCE_S, kernel_name="python3")
    client.execute(env=environment())
    said = "".join(each.get("data", {}).get("text/plain", "") for each in notebook.cells[0].outputs)
    assert re.findall(r"note (\d+)", said) == [str(number) for number in range(100)]


@pytest.mark.parametrize("drawing", ["display.Display()", "bar.CountBar('reading')"])
def test_what_was_printed_in_a_notebook_before_something_is_drawn_stays(drawing: str) -> None:
    cell = f"""\
import sys
from ipywidgets import Output
from fink_dask.show import bar, display
stream, clear_output = sys.stdout, Output.clear_output
def clear(self, *args, **kwargs):
    stream.flush()  # as it does by itself some tenths of a second after something was printed
    clear_output(self, *args, **kwargs)
stream.flush_interval, Output.clear_output = 600, clear
print("printed before")
with {drawing}:
    pass"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    client = NotebookClient(notebook, timeout=PATIENCE_S, iopub_timeout=PATIENCE_S, kernel_name="python3")
    client.execute(env=environment())
    printed = [each["text"] for each in notebook.cells[0].outputs if each["output_type"] == "stream"]
    assert printed == ["printed before\n"]
