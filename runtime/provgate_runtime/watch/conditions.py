"""What must hold for a program to do its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that must hold.

    Attributes:
        name: for programs, for example "broker".
        problem: why it does not hold, for people and without a secret; None while it holds.
    """

    name: str
    problem: str | None = None

    @property
    def holds(self) -> bool:
        """Whether it holds."""
        return self.problem is None
