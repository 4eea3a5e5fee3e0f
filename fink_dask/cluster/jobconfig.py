"""A section of dask-jobqueue's configuration, which a user has written: read, completed and checked."""

from __future__ import annotations

import copy
from typing import Any

import dask

from fink_dask.errors import SettingsError

#: These are lists; what is given is added to what is there.
LISTS = {"job_extra_directives", "job_script_prologue", "worker_extra_args"}


def read_section(system: str, name: str) -> dict[str, Any]:
    """Find a section of Dask's configuration; where it says nothing, the one of the batch system counts.

    Raises
    ------
    SettingsError
        If there is none such, or something in it can't stand in a job script.
    """
    sections = dask.config.get("jobqueue")
    if name not in sections:
        raise SettingsError(
            f"--cluster-config {name[:40]}: Dask's configuration has no such section of jobqueue, "
            f"but {', '.join(sorted(map(str, sections)))}"
        )
    given = sections[name] or {}
    if not isinstance(given, dict):
        raise SettingsError(f"jobqueue.{name[:40]} of Dask's configuration is no section of names and values")
    section = copy.deepcopy(sections[system])
    dask.config.update(section, given)
    section = {key.replace("_", "-"): value for key, value in section.items()}
    for key, value in section.items():
        check_value(f"{key} in jobqueue.{name} of Dask's configuration", key.replace("-", "_"), value)
    dask.config.set({f"jobqueue.{name}": section})
    return section


def check_value(what: str, name: str, value: Any) -> None:
    """Refuse what dask-jobqueue would write into a job script as something else than what was meant.

    Raises
    ------
    SettingsError
        If a text has a second line, which would be a command of the script; if a list is none; or if a time is a
        number: YAML takes ``12:00:00`` for one of seconds, and Slurm that for one of minutes.
    """
    if name == "walltime" and isinstance(value, int | float):
        raise SettingsError(f'{what} is the number {value}: have it in quotes, as in "12:00:00"')
    is_list = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if name in LISTS and value is not None and not is_list and not isinstance(value, dict):
        raise SettingsError(f'{what} should be a list of texts, such as ["--exclusive"]')
    texts = value if is_list else [value]
    if any(isinstance(each, str) and not each.replace("\t", " ").isprintable() for each in texts):
        raise SettingsError(f"{what} holds a line break, or something else that can't be printed")
