"""A terminal that commands are typed into, and a picture of it."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.harness.cli import environment

_PROMPT = "\x1b[1;32m$\x1b[0m "
#: A colour, any other control sequence, the end of a line, a return to its start, or text.
_TOKENS = re.compile(r"\x1b\[[\d;]*m|\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b")
# Without the fonts of a host elsewhere: what shows the picture has one of its own.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class Terminal:
    """A terminal of some width; what rich draws again is drawn over."""

    def __init__(self, cwd: Path, env: dict[str, str], width: int = 100) -> None:
        self._cwd = cwd
        # What their environment has besides.
        self._env = environment({**env, "TERM": "xterm-256color", "COLUMNS": str(width)})
        self._width = width
        self._lines = [""]
        self._row = 0

    @property
    def text(self) -> str:
        """What stands there, without colours."""
        return "\n".join(Text.from_ansi(line).plain for line in self._lines)

    def type(self, command: str, words: Sequence[str], timeout_s: float = 180) -> int:
        """Show a command as if it were typed, and run what it stands for; returns its status."""
        self._feed(f"{_PROMPT}{command}\n")
        ours, theirs = pty.openpty()
        ioctl(theirs, TIOCSWINSZ, pack("HHHH", 40, self._width, 0, 0))
        process = subprocess.Popen(
            words, cwd=self._cwd, env=self._env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        said = b""
        try:
            while chunk := _read(ours):
                said += chunk
            status = process.wait(timeout_s)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        self._feed(said.decode(errors="replace"))
        return status

    def picture(self, path: Path, title: str, replaced: dict[str, str]) -> None:
        """Write what stands there as SVG, with some texts in place of others."""
        console = Console(record=True, width=self._width, file=io.StringIO(), force_terminal=True)
        for line in self._lines:
            for old, new in replaced.items():
                line = line.replace(old, new)  # noqa: PLW2901 - the same line
            text = Text.from_ansi(line)
            for row in text.divide(range(self._width, len(text), self._width)):  # a terminal goes on in the next line
                console.print(row, soft_wrap=True)
        drawn = console.export_svg(title=title, code_format=_FORMAT, unique_id="terminal")
        path.write_text("\n".join(line.rstrip() for line in drawn.splitlines()) + "\n", encoding="utf-8")

    def _feed(self, said: str) -> None:
        for token in _TOKENS.findall(said):
            if token == "\n":
                self._row += 1
                if self._row == len(self._lines):
                    self._lines.append("")
            elif up := re.fullmatch(r"\x1b\[(\d*)A", token):
                self._row = max(0, self._row - int(up[1] or 1))
            elif token == "\x1b[2K":
                self._lines[self._row] = ""
            elif re.fullmatch(r"\x1b\[[\d;]*m|[^\x1b\r]+", token):
                self._lines[self._row] += token


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when nobody holds the other end any more
        return b""
