"""Attributes that are computed when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class lazy_property(Generic[Value]):  # noqa: N801 - it is used like a function
    """Like `functools.cached_property`, but without a lock, as that is from Python 3.12 on.

    Before, all instances of a class share the lock of an attribute: two threads that each compute one attribute, and
    need the other's for it, would wait for each other for ever. Here both may compute it, to the same result.

    Parameters
    ----------
    compute : callable
        Takes the instance and returns the value.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the name under which an instance keeps the value."""
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        """Compute the value, and keep it where it is found without this function the next time."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
