"""What can go wrong, said in words: one root error and a few children.

Every argument of a constructor goes to ``Exception.__init__`` by position and ``__str__`` formats them, because only
that form survives pickling, and errors travel from Dask workers to the client.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

#: Stands before and behind a parameter in a message. No argument, path or name of a topic can hold it.
_MARK = "\0"
#: Parameters that are no options, as everybody on the machine can see the arguments of processes.
_SECRET = {"password"}


def parameter(name: str, value: object = None) -> str:
    """Name a parameter in the message of an error; `option`, or another front end, spells it when the error is shown.

    Parameters
    ----------
    name : str
        As Python has it: ``on_loss``.
    value : object, optional
        What to give it; a word in capitals stands for something of the user's, and True for a flag.
    """
    return f"{_MARK}{name}{'' if value is None else f'={value}'}{_MARK}"


def option(name: str, value: str) -> str:
    """Spell a parameter as the command line has it: ``--on-loss continue``."""
    spelled = variable(name) if name in _SECRET else f"--{name.replace('_', '-')}"
    return spelled if value in {"", "True"} else f"{spelled} {value}"


def variable(name: str) -> str:
    """Spell a parameter as the environment has it: ``FINK_DASK_ON_LOSS``."""
    return f"FINK_DASK_{name.upper()}"


def shown(text: str) -> str:
    """Replace each character that a terminal could obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def one_line(error: object, most: int = 300) -> str:
    """Say in one line of bounded length what somebody else's error says."""
    return " ".join(str(error).split())[:most]


def words_of(error: BaseException) -> str:
    """Say in one line what kind of error somebody else's is, and what it says."""
    return f"{type(error).__name__}: {one_line(error)}"


def bug_of(error: BaseException) -> str:
    """Say in one line what an error is that nobody expected, and which line of code it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    return f"unexpected {words_of(error)}{where}"


def spell(message: str, how: Callable[[str, str], str] = option) -> str:
    """Spell the parameters in a message.

    Parameters
    ----------
    message : str
        The message.
    how : callable
        Gets a parameter's name, and the value to give it, or "".
    """
    first, *parts = message.split(_MARK)
    for number, part in enumerate(parts):
        name, _, value = part.partition("=")
        first += how(name, value) if number % 2 == 0 and name.isidentifier() else part
    return first


class FinkDaskError(Exception):
    """Report a failure that a user can act on, in one line.

    Parameters
    ----------
    message : str
        What happened and what to do about it, without a full stop; it names parameters by `parameter`.
    topic : str, optional
        The Kafka topic it happened in.
    partition : int, optional
        The Kafka partition.
    offset : int, optional
        The offset of the record, or the next offset to read.
    """

    exit_code = 1
    #: Whether the same range may succeed when it is tried again.
    transient = False

    def __init__(
        self, message: str, topic: str | None = None, partition: int | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message, topic, partition, offset)
        self.message = message
        self.topic = topic
        self.partition = partition
        self.offset = offset

    def __str__(self) -> str:
        # It may name a file, or quote a schema, from outside: nothing in it breaks the line, or moves a cursor.
        return shown(spell(self.line))

    @property
    def line(self) -> str:
        """The whole, for the message of another error: its parameters are not spelled yet."""
        if self.topic is None:
            return self.message
        where = self.topic if self.partition is None else f"{self.topic}[{self.partition}]"
        if self.offset is not None:
            where += f" at offset {self.offset}"
        return f"{where}: {self.message}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that the message names, as Python has them; the first is usually the one that is wrong."""
        found: list[str] = []
        spell(self.message, lambda name, _: found.append(name) or "")  # type: ignore[func-returns-value]
        return tuple(dict.fromkeys(found))

    def spell(self, how: Callable[[str, str], str]) -> None:
        """Spell the parameters for good, in the words of the front end that the user is at."""
        self.message = spell(self.message, how)
        self.args = (self.message, *self.args[1:])


class SettingsError(FinkDaskError):
    """A setting, an option or a file of settings is wrong; nothing was done."""

    exit_code = 2


class BrokerError(FinkDaskError):
    """Kafka did not answer, refused, or does not hold what was asked for."""


class BrokerUnavailableError(BrokerError):
    """Kafka did not answer in time; the same request may succeed later."""

    transient = True


class CrowdedLineError(BrokerUnavailableError):
    """Kafka answers, and nothing that was asked for comes in time: too much of it is on its way at once."""


class SchemaError(FinkDaskError):
    """An Avro schema is missing, hostile, or of an unsupported form."""


class UnknownTypeError(SchemaError):
    """An Avro schema names a type that it does not define."""


class MissingSchemaError(SchemaError):
    """A topic has no schema, or none yet."""


class LedgerError(FinkDaskError):
    """The ledger and what was asked for, or what is on disk, disagree."""


class StorageError(FinkDaskError):
    """The file system refused: full, read-only, gone, or not able to do what a commit needs."""


class TransferError(FinkDaskError):
    """One or more ranges failed; what is committed stays committed."""


class InterruptedTransferError(FinkDaskError):
    """A signal or a cancellation ended the transfer; it can be resumed."""
