"""Where the value of a setting comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SourceKind(StrEnum):
    """What gave a value.

    Attributes:
        DEFAULT: nothing; it is the setting's default.
        PROGRAM: nothing; each program sets its own.
        FILE: the configuration file.
        VALUE_FILE: a file that holds this value alone.
        ENVIRONMENT: an environment variable.
        FLAG: a flag of the command line.
    """

    DEFAULT = "default"
    PROGRAM = "program"
    FILE = "file"
    VALUE_FILE = "value_file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from.

    Attributes:
        kind: what gave it.
        name: of the file, variable or flag; None for a default.
        named_by: what names a file that holds this value alone: a key, variable or flag.
    """

    kind: SourceKind
    name: str | None = None
    named_by: str | None = None

    def __str__(self) -> str:
        named_by = f", named by {self.named_by}" if self.named_by else ""
        return f"{self.name or self.kind}{named_by}"


DEFAULT: Final = Source(SourceKind.DEFAULT)
