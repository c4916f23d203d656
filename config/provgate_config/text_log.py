"""Records as lines of text."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s[%(process)d] %(action)s: %(message)s"

# What ends a line, for whoever reads it, and what a terminal obeys.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_INDENT: Final = "    "


class TextFormatter(logging.Formatter):
    """Makes a line of a record. A traceback follows in lines that are indented, as no record is.

    Control characters are escaped, since texts from outside are in messages: what somebody sends may look like a record
    only within one.
    """

    def __init__(self) -> None:
        # A library's record has no action.
        super().__init__(_FORMAT, defaults={"action": "-"})

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is that of the base
        """Returns the line."""
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Returns the lines of a traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Returns the lines of a stack."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(_INDENT + _escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
