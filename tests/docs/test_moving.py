"""Who comes from fink-client finds each of its options: the table names all of them, and what it says of them is so."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fink_dask.cli.main import cli
from tests.harness.environments import ROOT

PAGE = (ROOT / "docs" / "moving-from-fink-client.md").read_text()
#: What the parsers of fink-client 12.3.0, and of its elder fink_datatransfer, take.
FINKCTL_TRANSFER = {
    *(
        "-survey",
        "-topic",
        "-outdir",
        "-outformat",
        "-partitionby",
        "-limit",
        "-batchsize",
        "-nconsumers",
        "-maxtimeout",
    ),
    *("-number_partitions", "--restart_from_beginning", "--dump_schemas", "--verbose"),
}
FINK_DATATRANSFER = (FINKCTL_TRANSFER - {"-survey", "-outformat", "--dump_schemas"}) | {"--dump_schema"}
OTHERS = {
    *("-username", "-groupid", "-servers", "-log_level", "--tmp", "-start_at", "-ext_schema", "--display_statistics"),
    *("--display", "--save", "--telegram", "--slack", "--dump_schema", "-f"),
    *("-group_id", "-password", "-mytopics", "-schema", "--available_topics"),  # until fink-client 11
}
SAID = {
    *("finkctl auth register", "finkctl auth show", "finkctl topic", "finkctl stream", "finkctl transfer"),
    *("fink_alert_viewer", "fink_client_register", "fink_consumer"),
}


def rows(heading: str) -> list[list[str]]:
    """Read the table below a heading, without its head."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(re.findall(r"`([^`]+)`", text))))


def taken(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_every_option_of_a_transfer_with_fink_client_has_its_line() -> None:
    assert (
        set().union(*(options(row[0]) for row in rows("Options of a transfer"))) == FINKCTL_TRANSFER | FINK_DATATRANSFER
    )
    other = " ".join(row[0] for row in rows("Other commands"))
    assert OTHERS - options(other) == set()
    assert [command for command in SAID if f"`{command}" not in other] == []


@pytest.mark.parametrize("name", sorted(FINKCTL_TRANSFER | FINK_DATATRANSFER))
def test_an_option_of_fink_client_can_be_typed_as_it_was(name: str) -> None:
    dashes, plain = re.fullmatch(r"(-+)(.+)", name).groups()  # type: ignore[union-attr]
    spelled = f"{dashes}{plain.replace('_', '-')}"
    assert spelled in taken(cli.commands["transfer"]), "underscores are the same as dashes; see CONTEXT"


#: Where somebody types an option of each command of fink-client here.
TYPED_AT = {
    "transfer": FINKCTL_TRANSFER | FINK_DATATRANSFER,
    "register": {"-survey", "-username", "-groupid", "-servers", "-maxtimeout", "-log_level", "--tmp"}
    | {"-group_id", "-password", "-mytopics"},
    "topics": {"-survey", "-name", "-telegram_token", "-telegram_channel", "-slack_token", "-slack_channel"}
    | {"--available_topics"},
    "peek": {"-f", "-survey", "--display"},
}
STREAM = {"-survey", "-limit", "-start_at", "-outdir", "-ext_schema", "--display_statistics", "--display", "--save"}
TYPED_AT["transfer"] |= STREAM | {"--telegram", "--slack", "--dump_schema", "-schema", "--available_topics"}


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in TYPED_AT.items() for name in sorted(names)]
)
def test_each_option_of_the_old_client_is_taken_or_answered_with_todays_word(command: str, name: str) -> None:
    try:
        cli.main([command, name, "--no-such-option"], standalone_mode=False)
    except click.UsageError as error:
        said = error.format_message()
    plain = name.lstrip("-").replace("_", "-")
    if f"--{plain}" in taken(cli.commands[command]):
        assert "no-such-option" in said or "no option" not in said, "it is taken, with what follows as its value"
        return
    assert said.startswith(f"no option {name}; ")
    words = said.partition("; ")[2]
    known = set().union(*(taken(each) for each in cli.commands.values()))
    commands = set(re.findall("fink-dask ([a-z-]+)", words)) - {"sends"}
    assert commands <= set(cli.commands), said
    assert set(re.findall(r"--[a-z-]+", words)) <= known, said
    assert commands or "--" in words or "leave it out" in words or "no messages" in words, said


@pytest.mark.parametrize(
    "command", ["auth", "stream", "topic", "fink_consumer", "fink_datatransfer", "fink_alert_viewer"]
)
def test_each_command_of_the_old_client_is_answered_with_todays_word(command: str) -> None:
    with pytest.raises(click.UsageError, match=f"no command {command}; type fink-dask ") as caught:
        cli.main([command, "-survey", "ztf"], standalone_mode=False)
    assert re.search("type fink-dask ([a-z]+)", caught.value.format_message()).group(1) in cli.commands  # type: ignore[union-attr]


def test_every_option_and_command_that_the_page_sends_to_is_there() -> None:
    transfer = taken(cli.commands["transfer"])
    for row in rows("Options of a transfer"):
        assert options(row[1]), row
        assert options(row[1]) <= transfer, row
    everything = set().union(*(taken(command) for command in cli.commands.values()))
    for heading in ("Other commands", "Habits"):
        for row in rows(heading):
            assert options(row[1]) <= everything, row
            named = set(re.findall(r"`fink-dask ([a-z-]+)", row[1]))
            assert named <= set(cli.commands), row


def test_every_habit_has_its_page() -> None:
    for row in rows("Habits"):
        linked = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", row[2])
        assert linked, row
        assert all((ROOT / "docs" / Path(link)).is_file() for link in linked), row
