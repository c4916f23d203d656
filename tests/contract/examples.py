"""Values that the contract tests write."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from provgate_storage.model import Id, Path, RelationData

if TYPE_CHECKING:
    from tests.contract.writes import Write

DAY: Final = datetime(2015, 6, 7, 8, 9, 10, 123_456, tzinfo=UTC)
EARLIEST_DATE: Final = datetime.min.replace(tzinfo=UTC)
LATEST_DATE: Final = datetime.max.replace(tzinfo=UTC)

ODD_PATHS: Final = [
    b"",
    b".",
    b"a/b c/d",
    b"\xff\xfe not utf-8 \x80",
    "ünïcode/\U0001f600".encode(),
    b"new\nline\r\ttab\x01\x7f",
    b"{\"quo'tes\\\\,}%s NULL \\N",
    b"NULL",
    b"x" * 31,
    b"x" * 32,
    b"x" * 33,
    b"x" * 2705,
    b"x" * 4096,
    b"x" * 4095 + b"y",
]


def entry_id(number: int) -> Id:
    """Returns an id. Those of 0 to 15 sort as the numbers do, and are in 16 different ranges."""
    return bytes([number % 16 * 16]) + number.to_bytes(19)


def row(dst: int, path: Path | None = None) -> RelationData:
    """Returns a row of a relation, to the id of a number."""
    return RelationData(entry_id(dst), path)


@dataclass
class Scope:
    """The few ids, and the paths, that one example of a property uses and no other does."""

    number: int
    ids: list[Id] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [self.id(number) for number in range(6)]

    def id(self, number: int) -> Id:
        """Returns one of the scope's ids."""
        return hashlib.sha1(b"%d %d" % (self.number, number)).digest()

    def path(self, path: Path) -> Path:
        """Returns a path that is the scope's own."""
        return b"%d:" % self.number + path

    def owns_path(self, path: Path) -> bool:
        """Returns whether a path is one of the scope's."""
        return path.startswith(b"%d:" % self.number)

    def registers_of(self, writes: Iterable[Write]) -> tuple[dict[Id, set[str]], dict[Id, set[Id]]]:
        """Returns the URLs sent for each origin, and the preferred origins sent for each revision."""
        urls: dict[Id, set[str]] = {}
        preferred: dict[Id, set[Id]] = {}
        for write in writes:
            for number, url in write.urls.items():
                urls.setdefault(self.id(number), set()).add(url)
            for number, (_, origin) in write.revisions.items():
                if origin is not None:
                    preferred.setdefault(self.id(number), set()).add(self.id(origin))
        return urls, preferred


_SCOPES: Final = itertools.count()


def example_scope() -> Scope:
    """Returns a scope that nobody has had."""
    return Scope(next(_SCOPES))
