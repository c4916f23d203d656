"""What a database tells of itself to whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Danger:
    """A setting under which what was acked may be lost.

    Attributes:
        setting: its name, as the database has it.
        value: what it is set to.
        harm: what may happen.
        remedy: what mends it: a command, or what to change where.
    """

    setting: str
    value: str
    harm: str
    remedy: str


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """A database server, as a program of ours sees it.

    Attributes:
        server: its name and version.
        now: its clock, when it answered.
        dangers: settings that endanger what is acked; none is known where the user may not see them.
    """

    server: str
    now: datetime
    dangers: tuple[Danger, ...]
