"""Policies by name: one pattern for scores, codecs, evictions and mergings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class Registry(dict[str, type[T]]):
    """Classes of one kind by their `name`, in the order in which errors list them.

    Args:
        setting: what a configuration calls the choice.
        kinds: classes with a `name` each.
    """

    def __init__(self, setting: str, kinds: Iterable[type[T]]) -> None:
        super().__init__((_name(kind), kind) for kind in kinds)
        self.setting = setting

    def check(self, name: object, *others: str, hint: str = "") -> str:
        """Return a name if it is one of these or of `others`.

        Args:
            name: to be checked.
            others: further names that are allowed.
            hint: what else is allowed, in words, for the error.

        Raises:
            ValueError: it is not; the message lists those that are.
        """
        known = [*self, *others]
        if isinstance(name, str) and name in known:
            return name
        listed = ", ".join(map(repr, known))
        raise ValueError(f"{self.setting}={name!r} is not known; use {listed}{hint}")


def _name(kind: Any) -> str:
    return str(kind.name)
