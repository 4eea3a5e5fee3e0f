"""Read conditions as users write them, such as ``candidate.magpsf < 18 and finkclass == "SN candidate"``.

The language is its own, so that nothing of Python is ever run, and a condition in a ledger has the same form whatever
reads it. What a condition means is said in `fink_dask.where.condition`. The grammar, the loosest binding first::

    either     = both {"or" both}
    both       = negated {"and" negated}
    negated    = {"not"} comparison
    comparison = sum {sign sum} | sum ["not"] "in" "[" literal {"," literal} "]" | sum "is" ["not"] "null"
    sum        = product {("+" | "-") product}
    product    = signed {("*" | "/") signed}
    signed     = {"-"} (number | text | "true" | "false" | column | "(" either ")")
    column     = name {"." name}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Context, Decimal, DecimalException
from typing import NamedTuple

from fink_dask.errors import SettingsError

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
#: The words of the language; columns of these names are written in backticks.
WORDS = frozenset({"and", "or", "not", "in", "is", "null", "none", "true", "false"})
#: How tightly the parts of a tree hold together, for its parentheses.
_STRENGTHS = {"or": 1, "and": 2, "not": 3, "+": 5, "-": 5, "*": 6, "/": 6, "negative": 7}
_COMPARED, _SUM, _SIGNED, _WHOLE = 4, 5, 7, 8
#: Longer numbers are written with an exponent.
_PLAIN_DIGITS = 30

#: Nobody writes longer or deeper ones, or ones of more parts; a list of some hundred identifiers has room.
MAX_LENGTH, MAX_PARTS, MAX_DEPTH = 10_000, 1_000, 50
#: Beyond any number that Avro has.
_MAX_DIGITS, _MAX_EXPONENT = 100, 400
_EXACT = Context(prec=_MAX_DIGITS)
_SHOWN = 30

_TOKEN = re.compile(
    r"""(?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)
    |(?P<name>[a-z_]\w*)
    |`(?P<column>[a-z_]\w*)`
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<sign>==|!=|<=|>=|[<>()\[\],.+*/-])
    |(?P<space>\s+)""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
#: Signs of other languages, and what they are here.
_HINTS = {"=": "==", "&": "and", "|": "or", "!": "not"}


@dataclass(frozen=True)
class Expression:
    """A part of a condition; as text it is the one form of all ways to write it."""

    #: ``and``, ``or``, ``not``, one of `COMPARISONS`, ``in``, ``not in``, ``is null``, ``is not null``, ``+``, ``-``,
    #: ``*``, ``/``, ``negative``, ``column``, ``number``, ``text`` or ``truth``.
    op: str
    #: What it is made of.
    parts: tuple[Expression, ...] = ()
    #: Of the last four.
    value: str | Decimal | bool | None = None
    #: Where it begins in the text.
    at: int = field(default=0, compare=False)
    #: depth, size: levels of it, and parts that it has in all.
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


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse_condition(text: str) -> Expression:
    """Read a condition.

    `text`: the condition. A column that is called like a word of the language, such as ``in``, stands in backticks.
    Raises SettingsError that says where it is not one, or that it is larger than any that somebody would write.
    """
    found = _read(text)
    if (canonical := str(found)) != text:
        _read(canonical)  # it is what will be read from now on, and may be longer
    return found


def mistake(text: str, at: int, words: str) -> SettingsError:
    """Make an error that points at a place in a condition."""
    place = f"at character {at + 1}: {text[at : at + _SHOWN]!r}" if text[at:].strip() else "at its end"
    return SettingsError(f"{words} ({place})")


def _read(text: str) -> Expression:
    if len(text) > MAX_LENGTH:
        raise SettingsError(f"the condition has {len(text):,} characters, more than {MAX_LENGTH:,}")
    return _Parser(text).whole()


class _Parser:
    """Reads one condition, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._tokenise()
        self._next = self._nested = 0

    def whole(self) -> Expression:
        found = self._either()
        if self._token.kind != "end":
            raise self._unexpected("and, or, or an operator is expected; text stands in quotes")
        return found

    def _tokenise(self) -> list[_Token]:
        found, at = [], 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise mistake(self._text, at, self._why_no_token(self._text[at]))
            kind = str(match.lastgroup)
            word = match[kind]
            if kind == "name" and word.lower() in WORDS:
                kind, word = "word", word.lower().replace("none", "null")
            if kind != "space":
                found.append(_Token(kind, word, at))
            at = match.end()
        return [*found, _Token("end", "", at)]

    @staticmethod
    def _why_no_token(character: str) -> str:
        if character in "\"'`":
            return f"a quotation that begins with {character} does not end, or is not a name"
        hint = f": write {_HINTS[character]}" if character in _HINTS else ""
        return f"{character!r} is not part of the language{hint}"

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> _Token | None:
        """Take the next token if it is one of these words or signs."""
        token = self._token
        if token.kind not in {"word", "sign"} or token.text not in texts:
            return None
        self._next += 1
        return token

    def _want(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected(f"{text} is expected")

    def _unexpected(self, words: str) -> SettingsError:
        return mistake(self._text, self._token.at, words)

    def _node(self, op: str, at: int, *parts: Expression, value: str | Decimal | bool | None = None) -> Expression:
        node = Expression(op, parts, value, at)
        if node.size > MAX_PARTS:
            raise mistake(self._text, at, f"the condition has more than {MAX_PARTS:,} parts")
        if node.depth > MAX_DEPTH:
            raise mistake(self._text, at, f"the condition is nested deeper than {MAX_DEPTH} levels")
        return node

    def _deeper(self, read: Callable[[], Expression]) -> Expression:
        """Read what is inside something, which calls this again."""
        self._nested += 1
        if self._nested > MAX_DEPTH:
            raise self._unexpected(f"the condition is nested deeper than {MAX_DEPTH} levels")
        found = read()
        self._nested -= 1
        return found

    def _either(self) -> Expression:
        return self._joined("or", self._both)

    def _both(self) -> Expression:
        return self._joined("and", self._negated)

    def _joined(self, op: str, read: Callable[[], Expression]) -> Expression:
        at, parts = self._token.at, [read()]
        while self._take(op):
            parts.append(read())
        if len(parts) == 1:
            return parts[0]
        # Parentheses around what is joined in the same way make no difference.
        flat = [inner for part in parts for inner in (part.parts if part.op == op else (part,))]
        return self._node(op, at, *flat)

    def _negated(self) -> Expression:
        if token := self._take("not"):
            return self._node("not", token.at, self._deeper(self._negated))
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._sum()
        if self._take("is"):
            op = "is not null" if self._take("not") else "is null"
            self._want("null")
            return self._node(op, left.at, left)
        if self._token.kind == "word" and self._token.text in {"not", "in"}:
            op = "not in" if self._take("not") else "in"
            self._want("in")
            return self._node(op, left.at, left, *self._list())
        found = []
        while sign := self._take(*COMPARISONS):
            right = self._sum()
            found.append(self._node(sign.text, left.at, left, right))
            left = right
        # As in Python, 16 < x <= 18 is 16 < x and x <= 18.
        return left if not found else found[0] if len(found) == 1 else self._node("and", found[0].at, *found)

    def _list(self) -> list[Expression]:
        self._want("[")
        found = [self._literal()]
        while self._take(","):
            found.append(self._literal())
        self._want("]")
        return found

    def _literal(self) -> Expression:
        at, found = self._token.at, self._signed()
        if not found.is_literal:
            raise mistake(self._text, at, "a list holds only numbers and quoted texts")
        return found

    def _sum(self) -> Expression:
        return self._computed(("+", "-"), self._product)

    def _product(self) -> Expression:
        return self._computed(("*", "/"), self._signed)

    def _computed(self, signs: tuple[str, str], read: Callable[[], Expression]) -> Expression:
        found = read()
        while sign := self._take(*signs):
            found = self._node(sign.text, found.at, found, read())
        return found

    def _signed(self) -> Expression:
        token = self._take("-")
        if token is None:
            return self._atom()
        found = self._deeper(self._signed)
        if found.op == "number" and isinstance(found.value, Decimal):
            return self._node("number", token.at, value=-found.value if found.value else found.value)
        return self._node("negative", token.at, found)

    def _atom(self) -> Expression:
        token = self._token
        if self._take("("):
            found = self._deeper(self._either)
            self._want(")")
            return found
        if truth := self._take("true", "false"):
            return self._node("truth", truth.at, value=truth.text == "true")
        if token.text == "null" and token.kind == "word":
            raise self._unexpected("nothing is equal to null: write is null, or is not null")
        if token.kind not in {"number", "text", "name", "column"}:
            raise self._unexpected("a column, a number or quoted text is expected")
        self._next += 1
        if token.kind == "number":
            return self._node("number", token.at, value=self._number(token))
        if token.kind == "text":
            return self._node("text", token.at, value=self._unquoted(token))
        names = [token.text]
        while self._take("."):
            if self._token.kind not in {"name", "column"}:
                raise self._unexpected("the name of a field is expected, in backticks where it is a word of conditions")
            names.append(self._token.text)
            self._next += 1
        return self._node("column", token.at, value=".".join(names))

    def _number(self, token: _Token) -> Decimal:
        try:
            value = Decimal(token.text)
        except DecimalException:  # an exponent of twenty digits
            value = Decimal("inf")
        if len(token.text) > _MAX_DIGITS or not value.is_finite() or abs(value.adjusted()) > _MAX_EXPONENT:
            raise mistake(self._text, token.at, "a number that no column can hold")
        return _EXACT.normalize(value)

    def _unquoted(self, token: _Token) -> str:
        inside = token.text[1:-1]
        for match in re.finditer(r"\\(.)", inside, re.DOTALL):
            if match[1] not in "\\\"'":
                raise mistake(self._text, token.at + 1 + match.start(), "a backslash may stand before \\, \" or ' only")
        if not inside.isprintable():
            raise mistake(self._text, token.at, "quoted text has unprintable characters")
        return re.sub(r"\\(.)", r"\1", inside)
