"""The options for following a topic, and for when that ends."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from fink_dask.cli.options import Command, at_least_one, declare_all, option, typed_option
from fink_dask.config import FollowSettings
from fink_dask.errors import SettingsError

#: How following ends where the user does not say.
_IDLE = "60s"


def _time(_: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        words = f"{value[:40]!r} is not a time such as 2026-11-23T06:00 (UTC) or 2026-11-23T06:00+01:00"
        raise click.BadParameter(words, param=parameter) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


_OPTIONS = (
    typed_option("--follow", is_flag=True, help="Keep transferring what arrives while Fink fills the topic."),
    option(
        "--roll-interval",
        metavar="TIME",
        help="With --follow: the longest that an alert waits before its range is consumed.  [default: 30s]",
    ),
    option(
        "--idle-timeout",
        metavar="TIME",
        help="With --follow: end when nothing has arrived for this long.  [default: 60s, if no other end is given]",
    ),
    typed_option(
        "--until-count",
        type=int,
        callback=at_least_one,
        metavar="N",
        help="With --follow: end once there are N alerts, such as the number that the portal announced.",
    ),
    typed_option(
        "--until", metavar="TIME", callback=_time, help="With --follow: end at this time; UTC unless it has a zone."
    ),
)


def follow_options(command: Command) -> Command:
    """Declare the options of `follow_settings`."""
    return declare_all(command, _OPTIONS)


def follow_settings(
    *,
    follow: bool,
    roll_interval: str | None,
    idle_timeout: str | None,
    until_count: int | None,
    until: datetime | None,
) -> FollowSettings | None:
    """Collect how the topic is followed; None where it is not.

    Raises
    ------
    SettingsError
        If the topic is not followed and one of these is given, or a value is out of its bounds.
    """
    if not follow:
        given = {
            "--roll-interval": roll_interval,
            "--idle-timeout": idle_timeout,
            "--until-count": until_count,
            "--until": until,
        }
        for name, value in given.items():
            if value is not None:
                raise SettingsError(f"{name} needs --follow: give that as well")
        return None
    from fink_dask.cluster.local import parse_duration

    durations = {"roll_interval": roll_interval, "idle_timeout": idle_timeout}
    if idle_timeout is None and until_count is None and until is None:
        durations["idle_timeout"] = _IDLE
    seconds = {
        f"{name}_s": parse_duration(f"--{name.replace('_', '-')}", text)
        for name, text in durations.items()
        if text is not None
    }
    return FollowSettings(until_count=until_count, until=until, **seconds)
