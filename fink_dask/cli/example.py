"""``fink-dask example``: write one of the examples that come with the package."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import click

from fink_dask.cli.command import UserPath, command, typed_option
from fink_dask.cli.output import deliver, is_streamed, say
from fink_dask.errors import SettingsError, StorageError

#: A row of the table in their README: the file, and what it does.
_ROW = re.compile(r"^\| \[`([\w.]+)`\]\([\w.]+\) \| (.+) \|$", re.MULTILINE)


@command("fink-dask example light-curve")
@click.argument("name", required=False)
@typed_option(
    "--output",
    "-o",
    type=UserPath(dir_okay=False, path_type=Path),
    help="File to write; by default that of its name, in the working directory.",
)
def example(name: str | None, output: Path | None) -> int:
    """Write an example into the working directory, or list them if no NAME is given.

    They are programs and a notebook, to be run as they are or to begin with. A file that is there is left as it is.
    """
    folder = _folder()
    known = {_name_of(file): (file, words) for file, words in _ROW.findall((folder / "README.md").read_text("utf-8"))}
    if name is None:
        width = max(map(len, known))
        for each, (_, words) in known.items():
            say(f"{each:{width}}  {words.replace('`', '')}")
        return 0
    if _name_of(name) not in known:
        raise SettingsError(f"there is no example {name[:80]}: there are {', '.join(known)}")
    file, _ = known[_name_of(name)]
    target = output or Path(file)
    content = (folder / file).read_bytes()
    if is_streamed(target):
        deliver(target, content)
        return 0
    try:
        with target.open("xb") as new:
            new.write(content)
        target.chmod((folder / file).stat().st_mode & 0o777)
    except FileExistsError as error:
        raise StorageError(f"{target} exists, and is left as it is: choose another name with -o") from error
    say(f"{target} is written")
    return 0


def _name_of(file: str) -> str:
    """Return the name by which an example is asked for; a file's own name will do."""
    return Path(file).stem.replace("_", "-")


def _folder() -> Path:
    """Find the examples: a wheel has them in the package, a clone beside it."""
    package = Path(str(files("fink_dask")))
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"
