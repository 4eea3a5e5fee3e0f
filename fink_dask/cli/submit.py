"""``fink-dask submit``: run a transfer as a job of a batch system, which no lost connection ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fink_dask.cli.cluster import cluster_settings
from fink_dask.cli.command import PASSWORD_VARIABLE, FinkCommand, command, config_option, json_option, typed_option
from fink_dask.cli.output import print_json, say
from fink_dask.cli.spelling import spelled_out
from fink_dask.cli.transfer import transfer
from fink_dask.cluster.joboptions import JobOptions
from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import choose_topics
from fink_dask.settings import has_sasl, options_of
from fink_dask.store.location import store_of

#: Options about workers elsewhere, or about the terminal that this is typed in.
_LEFT_OUT = {
    *("min_jobs", "as_json", "config", "dashboard_address", "dry_run", "jobs", "scheduler", "tls_ca_file", "tls_cert"),
    *("tls_key", "verbose"),
}


class _Submit(FinkCommand):
    """A command that has the options of another one, and keeps what was typed for them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note what was typed, before it becomes settings."""
        ctx.meta["typed"] = self.make_parser(ctx).parse_args(spelled_out(ctx, args, self.bare))[0]
        return super().parse_args(ctx, args)


def _is_one_job(_: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter("a single job is submitted: --cores says how large it is", param=parameter)


@command(
    "fink-dask submit --cluster slurm --cores 8 --memory 16GB --walltime 04:00:00 "
    "--topic ftransfer_ztf_2026-02-24_123456 --outdir alerts",
    bare=("topic", "outdir"),
    cls=_Submit,
)
@typed_option("--dry-run", is_flag=True, help="Print the job script; submit nothing.")
@typed_option("--jobs", hidden=True, expose_value=False, callback=_is_one_job)
@typed_option("--adapt", hidden=True, expose_value=False, callback=_is_one_job)
@json_option
@config_option
def submit(
    topics: tuple[str, ...],
    outdir: Path,
    security_protocol: str,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
    **others: Any,
) -> int:
    """Run a whole transfer, including its scheduler, as one job of a batch system.

    The options are those of transfer, and those of the job. All work is done on the cores of the job's node. The job
    prints what transfer prints; fink-dask status OUTDIR shows how far it has got. At its time limit it stops in good
    order: submit it again to continue.
    """
    choose_topics(topics)
    if others["restart"] and not others["yes"]:
        raise SettingsError("--restart asks for confirmation, and a job has nobody to ask: give --yes")
    if os.environ.pop(PASSWORD_VARIABLE, None) and has_sasl(security_protocol) and password_file is None:
        raise SettingsError(
            f"a job does not get {PASSWORD_VARIABLE}, as others could see it there: put the password into a file that "
            "only you can read, and give --password-file FILE"
        )
    arguments = _arguments(click.get_current_context())
    jobs = cluster_settings({**others, "min_jobs": None, "jobs": None})
    if jobs is None:
        raise SettingsError("no batch system was named: give --cluster slurm, or another one")
    from fink_dask.cluster.jobspec import resolve
    from fink_dask.cluster.submit import BatchTransfer

    job = BatchTransfer(resolve(jobs), store_of(outdir).shared_directory(outdir.resolve(), "").parent, arguments)
    script = job.script()
    if dry_run:
        if as_json:
            print_json({"job_script": script})
        else:
            click.echo(script, nl=False)
        return 0
    number = job.submit()
    if as_json:
        print_json({"job": number, "job_script": script, "walltime": job.spec.walltime})
        return 0
    say(f"submitted to {job.spec.system} as job {number}")
    if job.spec.walltime is not None:
        chosen = "" if jobs.walltime is not None else "; --walltime asks for another"
        say(f"  time limit {job.spec.walltime}{chosen}")
    say(f"  progress   fink-dask status {outdir}")
    say(f"  output in  {job.logs}")
    return 0


def _arguments(ctx: click.Context) -> list[str]:
    """Spell out the options of the transfer again, wherever they came from."""
    found: list[str] = []
    for parameter in transfer.params:
        name = str(parameter.name)
        if name in _LEFT_OUT | options_of(JobOptions).keys():
            continue
        source = ctx.get_parameter_source(name)
        value = ctx.meta["typed"].get(name)
        if source is ParameterSource.ENVIRONMENT:
            value = parameter.resolve_envvar_value(ctx)
        elif source is ParameterSource.DEFAULT_MAP:
            value = ctx.lookup_default(name)
        if isinstance(parameter, click.Option) and parameter.multiple:
            found += [word for each in ctx.params[name] for word in (parameter.opts[0], str(each))]
        elif getattr(parameter, "is_flag", False):
            found += [parameter.opts[0]] if ctx.params.get(name) else []
        elif value is not None:
            found += [parameter.opts[0], str(value)]
    return found


# The options of the transfer come first in --help.
submit.params[:0] = [each for each in transfer.params if each.name not in _LEFT_OUT]
