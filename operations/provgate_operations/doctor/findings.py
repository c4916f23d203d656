"""The findings of checks, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec


class Severity(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    SKIPPED = "skipped"  # the check could not run
    WARNING = "warning"  # it works, but an operator should look at it
    BROKEN = "broken"  # something does not work, or acked data is in danger


_EXIT_CODES: Final = {Severity.OK: 0, Severity.SKIPPED: 0, Severity.WARNING: 1, Severity.BROKEN: 2}


class Finding(msgspec.Struct, frozen=True):
    """The result of a check. No text holds a secret.

    Attributes:
        check: the name of the check.
        severity: the severity.
        what: what was found.
        why: why it matters; empty if nothing is wrong.
        remedy: the command that fixes it, or what to change where; empty if nothing is wrong.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """Returns a finding where nothing is wrong."""
    return Finding(check, Severity.OK, what)


def skipped(check: str, what: str) -> Finding:
    """Returns the finding of a check that could not run."""
    return Finding(check, Severity.SKIPPED, what)


def warning(check: str, what: str, why: str, remedy: str) -> Finding:
    """Returns a finding that an operator should look at."""
    return Finding(check, Severity.WARNING, what, why, remedy)


def broken(check: str, what: str, why: str, remedy: str) -> Finding:
    """Returns a finding of something that does not work."""
    return Finding(check, Severity.BROKEN, what, why, remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """Returns the exit code of the worst finding: 1 for a warning, 2 for something broken, else 0."""
    return max((_EXIT_CODES[finding.severity] for finding in findings), default=0)
