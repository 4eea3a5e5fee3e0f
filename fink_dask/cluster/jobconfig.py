"""A section of dask-jobqueue's configuration, written by a user: read, completed and checked."""

from __future__ import annotations

import copy
from typing import Any

import dask

from fink_dask.errors import SettingsError

#: Options that are lists: what is given is added to what the section has.
LISTS = {"job_extra_directives", "job_script_prologue", "worker_extra_args"}


def read_section(system: str, name: str) -> dict[str, Any]:
    """Read a section of Dask's configuration; what it does not say comes from the batch system's own section.

    Raises
    ------
    SettingsError
        If there is no such section, or something in it can't stand in a job script.
    """
    sections = dask.config.get("jobqueue")
    if name not in sections:
        raise SettingsError(
            f"--cluster-config {name[:40]}: Dask's configuration has no such section of jobqueue, "
            f"only {', '.join(sorted(map(str, sections)))}"
        )
    given = sections[name] or {}
    if not isinstance(given, dict):
        raise SettingsError(f"jobqueue.{name[:40]} of Dask's configuration is not a section of names and values")
    section = copy.deepcopy(sections[system])
    dask.config.update(section, given)
    section = {key.replace("_", "-"): value for key, value in section.items()}
    for key, value in section.items():
        check_value(f"{key} in jobqueue.{name} of Dask's configuration", key.replace("-", "_"), value)
    dask.config.set({f"jobqueue.{name}": section})
    return section


def check_value(what: str, name: str, value: Any) -> None:
    """Refuse a value that would not mean in a job script what the user meant.

    Raises
    ------
    SettingsError
        If a text has a second line, which would be a command of the script; if what should be a list is not one; or
        if a time is a number: YAML reads ``12:00:00`` as a number of seconds, and Slurm takes it for minutes.
    """
    if name == "walltime" and isinstance(value, int | float):
        raise SettingsError(f'{what} is the number {value}: put it in quotes, as in "12:00:00"')
    is_list = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if name in LISTS and value is not None and not is_list and not isinstance(value, dict):
        raise SettingsError(f'{what} should be a list of texts, such as ["--exclusive"]')
    texts = value if is_list else [value]
    if any(isinstance(each, str) and not each.replace("\t", " ").isprintable() for each in texts):
        raise SettingsError(f"{what} holds a line break, or something else that can't be printed")
