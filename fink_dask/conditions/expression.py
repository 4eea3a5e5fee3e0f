"""A condition as a tree, and the one text that stands for all ways to write it, by which a ledger knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
#: The words of the language; columns of these names are written in backticks.
WORDS = frozenset({"and", "or", "not", "in", "is", "null", "none", "true", "false"})
#: How tightly the parts of a tree hold together, for its parentheses.
_STRENGTHS = {"or": 1, "and": 2, "not": 3, "+": 5, "-": 5, "*": 6, "/": 6, "negative": 7}
_COMPARED, _SUM, _SIGNED, _WHOLE = 4, 5, 7, 8
#: Longer numbers are written with an exponent.
_PLAIN_DIGITS = 30


@dataclass(frozen=True)
class Expression:
    """A part of a condition; as text it is the one form of all ways to write it.

    Parameters
    ----------
    op : str
        ``and``, ``or``, ``not``, one of `COMPARISONS`, ``in``, ``not in``, ``is null``, ``is not null``, ``+``, ``-``,
        ``*``, ``/``, ``negative``, ``column``, ``number``, ``text`` or ``truth``.
    parts : tuple of Expression
        What it is made of.
    value : str, decimal.Decimal or bool, optional
        Of the last four.
    at : int
        Where it begins in the text.

    Attributes
    ----------
    depth, size : int
        Levels of it, and parts that it has in all.
    """

    op: str
    parts: tuple[Expression, ...] = ()
    value: str | Decimal | bool | None = None
    at: int = field(default=0, compare=False)
    depth: int = field(init=False, compare=False, repr=False)
    size: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Computed at once: what is shared, as the middle of a < b < c, doubles with each level around it.
        object.__setattr__(self, "depth", 1 + max((part.depth for part in self.parts), default=0))
        object.__setattr__(self, "size", 1 + sum(part.size for part in self.parts))

    @property
    def is_literal(self) -> bool:
        """Whether it is a number, a text or a truth."""
        return self.op in {"number", "text", "truth"}

    def __str__(self) -> str:
        if not self.parts:
            return self._atom
        first, strength = self.parts[0], self._strength
        match self.op:
            case "and" | "or":
                text = f" {self.op} ".join(part.within(strength + 1) for part in self.parts)
            case "not":
                text = f"not {first.within(strength)}"
            case "negative":
                text = f"-{first.within(strength)}"
            case "is null" | "is not null":
                text = f"{first} {self.op}"
            case "in" | "not in":
                text = f"{first.within(_SUM)} {self.op} [{', '.join(map(str, self.parts[1:]))}]"
            case _:
                # What stands on the left is computed first: a - b - c is (a - b) - c.
                text = f"{first.within(max(strength, _SUM))} {self.op} {self.parts[1].within(strength + 1)}"
        return text

    @property
    def _atom(self) -> str:
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, Decimal):
            plain = f"{self.value:f}"
            return plain if len(plain) <= _PLAIN_DIGITS else str(self.value)
        text = str(self.value)
        if self.op == "column":
            return ".".join(f"`{name}`" if name.lower() in WORDS else name for name in text.split("."))
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def within(self, strength: int) -> str:
        """Return its text as a part of something that holds its parts so tightly."""
        return f"({self})" if self._strength < strength else str(self)

    @property
    def _strength(self) -> int:
        if self.op == "number" and isinstance(self.value, Decimal) and self.value < 0:
            return _SIGNED
        return _WHOLE if self.is_literal or self.op == "column" else _STRENGTHS.get(self.op, _COMPARED)
