"""What dask-jobqueue has to be told for the jobs that a user wants."""

from __future__ import annotations

import copy
import inspect
import re
import shlex
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask

from fink_dask.cluster.forkserver import SAFE_PATH, is_package_here
from fink_dask.cluster.joboptions import JobOptions
from fink_dask.cluster.local import DASK_CONFIG, MEMORY_FRACTION
from fink_dask.cluster.systems import SYSTEMS
from fink_dask.errors import SettingsError, one_line, parameter
from fink_dask.ranges.memory import WORKER_BYTES, MemoryShare, share_memory
from fink_dask.units import parse_memory, pluralize

#: Options that are lists: what is given is added to what the section has.
LISTS = {"job_extra_directives", "job_script_prologue", "worker_extra_args"}

#: Arguments that are set here, or make no sense for jobs that work for one transfer only.
_RESERVED = {"config_name", "name", "nanny", "scheduler", "security", "worker_command"}
#: Beside each thread that decodes there is one that prepares the next range, or writes one to disk.
_THREADS_A_CONSUMER = 2
_NOT_INSTALLED = "batch systems need dask-jobqueue, which is not installed here: pip install 'fink-dask[hpc]'"
#: What may stand in a job script without quotes.
_PLAIN_PATH = re.compile(r"[\w./+@:,=-]+")


def read_section(system: str, name: str) -> dict[str, Any]:
    """Read a section of Dask's configuration; what it does not say comes from the batch system's own section.

    Raises SettingsError if there is no such section, or something in it can't stand in a job script.
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

    Raises SettingsError if a text has a second line, which would be a command of the script; if what should be a list
    is not one; or if a time is a number: YAML reads ``12:00:00`` as a number of seconds, and Slurm takes it for
    minutes.
    """
    if name == "walltime" and isinstance(value, int | float):
        raise SettingsError(f'{what} is the number {value}: put it in quotes, as in "12:00:00"')
    is_list = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if name in LISTS and value is not None and not is_list and not isinstance(value, dict):
        raise SettingsError(f'{what} should be a list of texts, such as ["--exclusive"]')
    texts = value if is_list else [value]
    if any(isinstance(each, str) and not each.replace("\t", " ").isprintable() for each in texts):
        raise SettingsError(f"{what} holds a line break, or something else that can't be printed")


@dataclass(frozen=True)
class JobSpec:
    """What dask-jobqueue is told about the jobs."""

    #: What the user asked for.
    asked: JobOptions
    #: The class of dask-jobqueue.
    cluster_class: Any
    arguments: dict[str, Any]
    #: cores, memory_bytes, processes: of each job.
    cores: int
    memory_bytes: int
    processes: int
    #: Threads of a process that decode at once.
    turns: int
    #: The time limit of a job: dask-jobqueue has one for most batch systems, where none was asked for.
    walltime: str | None

    @property
    def system(self) -> str:
        """Name the batch system as in a sentence."""
        return SYSTEMS[self.asked.system].name

    @property
    def consumers(self) -> int:
        """How many ranges the jobs together consume at once."""
        return self.asked.jobs * self.cores

    @property
    def is_encrypted(self) -> bool:
        """Whether scheduler and workers speak TLS, as they do unless a protocol was named."""
        return not str(self.arguments.get("protocol", "tls")).startswith("tcp")

    def memory_share(self, limit: int | None) -> MemoryShare:
        """Divide the memory of a job among its threads; `limit` is what the user allows all jobs together."""
        consumers = self.turns * self.processes
        threads = _THREADS_A_CONSUMER * consumers
        most = int(self.memory_bytes * MEMORY_FRACTION)
        remedy = "give jobs more --memory, of which they take half, or fewer --cores"
        if limit is not None and limit // self.asked.jobs < most:
            most = limit // self.asked.jobs
            remedy = f"give a larger {parameter('memory_limit')}, which is for all jobs, or fewer --jobs or --cores"
        # The process that watches over a job's workers is as large as one of them.
        return share_memory(most, (self.processes + 1) * WORKER_BYTES, threads, threads, remedy, consumers)

    def check_command(self) -> None:
        """Raise a SettingsError where there is no command that submits jobs."""
        program = shlex.split(self.cluster_class.job_cls.submit_command)[0]
        if shutil.which(program) is None:
            raise SettingsError(f"there is no {program} here: run this on a host where {self.system} takes jobs")

    def new_job(self, job_class: Any, address: str, name: str, keywords: dict[str, Any]) -> Any:
        """Make a job without submitting it.

        Raises SettingsError if dask-jobqueue refuses an argument, in its own words.
        """
        try:
            return job_class(address, name=name, **keywords)
        except (ValueError, TypeError, KeyError) as error:
            words = f"dask-jobqueue can't make a job for {self.system} of this: {one_line(error)}"
            raise SettingsError(words) from error

    def keywords(self, room: Path, security: Any) -> dict[str, Any]:
        """Complete the arguments with the directory of the logs and the keys.

        Raises SettingsError if a job script can't hold the directory's name.
        """
        check_path(room)
        if not _PLAIN_PATH.fullmatch(sys.executable) and "python" not in self.arguments:
            words = "install fink-dask elsewhere, or give --cluster-option python=/shared/env/bin/python"
            raise SettingsError(f"a job script can't hold {sys.executable}: {words}")
        return {"log_directory": str(room), **self.arguments, "security": security}


def resolve(asked: JobOptions) -> JobSpec:
    """Combine what a user asks for with Dask's configuration.

    Raises SettingsError if dask-jobqueue is missing or does not know an option, or nothing gives the cores or the
    memory.
    """
    dask_jobqueue = import_dask_jobqueue()
    config_name = asked.config_name or asked.system
    system, tried = SYSTEMS[asked.system].name, SYSTEMS[asked.system].tried
    cluster_class = getattr(dask_jobqueue, SYSTEMS[asked.system].cluster)
    job_class = cluster_class.job_cls
    known = {
        name for each in (job_class, dask_jobqueue.core.Job) for name in inspect.signature(each.__init__).parameters
    }
    known -= {"self", "base_class_kwargs", "kwargs"} | _RESERVED
    for name in asked.options:
        if name not in known | {"scheduler_options"}:
            words = "fink-dask sets it itself" if name in _RESERVED else f"{system} has no such option"
            raise SettingsError(f"--cluster-option {name[:40]}: {words}; there are {', '.join(sorted(known))}")
    section = read_section(asked.system, config_name)
    given = _given(asked, known)
    for name, value in asked.options.items():
        # Read text as Dask reads the environment: 4 is a number, and [...] a list.
        given[name] = dask.config.interpret_value(value) if isinstance(value, str) else value
        check_value(f"--cluster-option {name}", name, given[name])
    if not isinstance(given.get("scheduler_options", {}), dict):
        raise SettingsError('--cluster-option scheduler_options should be names and values, such as {"port": 8786}')
    cores = int(_number("cores", given.get("cores", section.get("cores")), system))
    memory = given.get("memory", section.get("memory"))
    if memory is None:
        raise SettingsError(f"jobs of {system} need memory: give --memory, such as --memory 8GB")
    memory_bytes = parse_memory("--memory", str(memory))
    processes = int(_number("processes", given.get("processes", section.get("processes") or cores), system))
    if processes > cores:
        raise SettingsError(
            f"{pluralize(processes, 'process', 'processes')} are too many for {pluralize(cores, 'core')}"
        )
    lists = {name: [*(section.get(name.replace("_", "-")) or []), *given.pop(name, ())] for name in LISTS}
    if section.get("log-directory"):
        given.setdefault("log_directory", section["log-directory"])
    turns = -(-cores // processes)
    lists["worker_extra_args"] += ["--nthreads", str(_THREADS_A_CONSUMER * turns)]
    lists["job_script_prologue"] += [f"export {_variable(key)}={value}" for key, value in DASK_CONFIG.items()]
    if not is_package_here():  # the working directory of a job may hold a random.py
        lists["job_script_prologue"].append(f"export {SAFE_PATH}=1")
    if isinstance(section.get("job-extra-directives"), dict):  # HTCondor's are attributes with values
        pairs = [text.partition("=") for text in asked.job_extra]
        extra = {key.strip(): value.strip() for key, _, value in pairs}
        lists["job_extra_directives"] = section["job-extra-directives"] | extra
    if tried is not None:
        lists["job_extra_directives"][:0] = tried.workers
    given |= {"cores": cores, "memory": str(memory), "processes": processes, "config_name": config_name}
    if not section.get("name") or section["name"] == "dask-worker":
        given.setdefault("job_name", "fink-dask")
    walltime = given.get("walltime", section.get("walltime")) if "walltime" in known else None
    return JobSpec(asked, cluster_class, given | lists, cores, memory_bytes, processes, turns, walltime)


def _given(asked: JobOptions, known: set[str]) -> dict[str, Any]:
    """Give the options the names that dask-jobqueue has for them on this batch system."""
    account = "account" if "account" in known else "project"
    named = {"walltime": asked.walltime, "queue": asked.queue, account: asked.account}
    for name, value in named.items():
        if value is not None and name not in known:
            option = "--account" if name == account else f"--{name}"
            raise SettingsError(f"{option} means nothing to {SYSTEMS[asked.system].name}: use --job-extra")
    sizes = {"cores": asked.cores, "memory": asked.memory}
    given: dict[str, Any] = {name: value for name, value in (named | sizes).items() if value is not None}
    given["job_extra_directives"] = list(asked.job_extra)
    return given


def check_path(path: Path) -> None:
    """Raise a SettingsError where a job script can't hold a path of the dataset."""
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise SettingsError(
            f"a job script can't hold {path}: choose an {parameter('outdir')} of letters, digits, and ._-+="
        )


def import_dask_jobqueue() -> Any:
    """Import it, and undo what it does to signals: after its import Ctrl+C would end the program as a success."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        import dask_jobqueue
    except ImportError as error:
        raise SettingsError(_NOT_INSTALLED) from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)
    return dask_jobqueue


def _variable(key: str) -> str:
    """Name the environment variable that Dask reads a setting from."""
    return "DASK_" + key.replace(".", "__").replace("-", "_").upper()


def _number(name: str, value: Any, system: str) -> int:
    if value is None:
        example = "--cluster-option processes=4" if name == "processes" else f"--{name}, such as --{name} 4"
        raise SettingsError(f"jobs of {system} need {name}: give {example}")
    if not isinstance(value, int) or value < 1:
        raise SettingsError(f"{name} of a job is {value!r}, but must be a whole number, at least 1")
    return value
