"""Where a file of Python can be changed by one thing that a mistake would change, and what becomes of it.

Only what functions do is changed: no annotation, decorator, docstring or message, and no number but 0, 1 and 2, as
others are tuned. A statement can be left out, such as an fsync; the mutation tools at hand don't leave out any.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

#: What an operator is taken for.
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: Parts of the tree in which nothing is looked for; of what is raised, only whether it is.
_SKIPPED = {"annotation", "returns", "decorator_list", "exc", "cause"}


@dataclass(frozen=True)
class Change:
    """One thing that is changed.

    Parameters
    ----------
    path : str
        The file, from the root of the project.
    scope : str
        The function.
    line : int
        Where it begins, from 1.
    before, after : str
        The code that is replaced, in one line, and what replaces it.
    nth : int
        Which of those that are alike in the function.
    begin, end : int
        The bytes of the file that are replaced.
    """

    path: str
    scope: str
    line: int
    before: str
    after: str
    nth: int
    begin: int
    end: int
    #: The line of the code that it begins in.
    code: str

    @property
    def name(self) -> str:
        """What it is called as long as the function stays as it is, wherever it moves."""
        return f"{self.path} {self.scope}: {self.before} → {self.after}{f' #{self.nth}' if self.nth else ''}"

    def apply(self, source: bytes) -> bytes:
        """Make it."""
        return source[: self.begin] + self.after.encode() + source[self.end :]


def find_changes(path: str, source: bytes) -> list[Change]:
    """List every change of a file, in order."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found, alike = [], Counter[tuple[str, str, str]]()
    for scope, first, last, after in _in_functions(ast.parse(source), ""):
        begin = starts[first.lineno - 1] + first.col_offset
        end = starts[(last.end_lineno or 0) - 1] + (last.end_col_offset or 0)
        before = " ".join(source[begin:end].decode().split())
        nth = alike[scope, before, after]
        alike[scope, before, after] += 1
        code = lines[first.lineno - 1].decode().strip()
        found.append(Change(path, scope, first.lineno, before, after, nth, begin, end, code))
    return found


#: Function, first and last node that are replaced, and what by.
_Found = tuple[str, ast.stmt | ast.expr, ast.stmt | ast.expr, str]


def _in_functions(node: ast.AST, scope: str) -> Iterator[_Found]:
    """Go down to the functions, and to those in them."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}" if scope else node.name
    if _is_words(node):
        return
    # An attribute that a constructor does not set is noticed by whoever runs the code at all.
    is_set_up = scope.endswith(".__init__") and isinstance(node, ast.Assign)
    if scope and not is_set_up and not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.arguments):
        yield from ((scope, *each) for each in _changes_of(node))
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED or (isinstance(node, ast.ClassDef) and field != "body"):
            continue
        for child in value if isinstance(value, list) else [value]:
            # What a class says of its own, outside of its methods, are defaults.
            if isinstance(child, ast.AST) and not (
                isinstance(node, ast.ClassDef) and not isinstance(child, ast.FunctionDef | ast.ClassDef)
            ):
                yield from _in_functions(child, scope)


def _is_words(node: ast.AST) -> bool:
    """Tell whether it only says something: a docstring, a text with values, a line of a log."""
    match node:
        case ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
    return False


def _changes_of(node: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, ast.stmt | ast.expr, str]]:
    match node:
        case ast.Compare(ops=[operator, *others]) if type(operator) in _COMPARED:
            yield node, node, _text(node, ops=[_COMPARED[type(operator)](), *others])
        case ast.BinOp(op=operator) if type(operator) in _COMPUTED:
            yield node, node, _text(node, op=_COMPUTED[type(operator)]())
        case ast.BoolOp(op=operator):
            yield node, node, _text(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, node, f"({ast.unparse(operand)})"
        case ast.Constant(value=bool() as value):
            yield node, node, str(not value)
        case ast.Constant(value=int() as value) if value in {0, 1, 2}:
            yield node, node, str(value + 1)
        case ast.Call(func=ast.Name(id=name) as function) if name in _CALLED:
            yield function, function, _CALLED[name]
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield node, node, "pass"
        case ast.Assign(targets=targets) if all(isinstance(one, ast.Attribute | ast.Subscript) for one in targets):
            yield node, node, "pass"
        case ast.Continue():
            yield node, node, "break"
        case ast.Break():
            yield node, node, "continue"
        case ast.ExceptHandler(body=[first, *_] as body) if not (isinstance(first, ast.Raise) and first.exc is None):
            yield first, body[-1], "raise"
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.UnaryOp | ast.Compare):
        yield node.test, node.test, f"(not ({ast.unparse(node.test)}))"


def _text(node: ast.expr, **other: object) -> str:
    changed = copy.copy(node)
    for field, value in other.items():
        setattr(changed, field, value)
    return f"({ast.unparse(changed)})"
