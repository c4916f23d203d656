"""What must hold for the gateway to be given calls, told by whoever knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provgate_runtime.watch.conditions import Condition

Source = Callable[[], Sequence[Condition]]
"""Tells conditions as they are now. Called on any thread, often: it returns what is known and asks nobody."""


class Readiness:
    """Named conditions, each set by its owner, and those of sources that are asked. Thread-safe.

    A condition that a source tells takes the place of one that was set under its name: what is said before a part of
    the gateway exists ends when that part speaks for itself.
    """

    def __init__(self) -> None:
        self._set: dict[str, Condition] = {}
        self._sources: tuple[Source, ...] = ()

    def set(self, name: str, problem: str | None = None) -> None:
        """Sets a condition: why it does not hold, or that it does."""
        self._set = self._set | {name: Condition(name, problem)}

    def add(self, source: Source) -> None:
        """Has a source asked from now on."""
        self._sources = (*self._sources, source)

    def conditions(self) -> list[Condition]:
        """Returns all conditions as they are now, each name once."""
        found = dict(self._set)
        for source in self._sources:
            found |= {condition.name: condition for condition in source()}
        return list(found.values())
