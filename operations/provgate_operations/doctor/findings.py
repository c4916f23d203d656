"""What a check finds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T], timeout_s: float) -> T:
    """Returns what a call returns, which runs on a thread that does not hold up the end of the program.

    Raises:
        TimeoutError: it takes longer than `timeout_s`; it goes on meanwhile.
        Exception: what the call raised.
    """
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001  # whoever waits decides
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wait_for(asyncio.wrap_future(done), timeout_s)


class Severity(StrEnum):
    """How bad a finding is.

    Attributes:
        OK: it is as it should be.
        SKIPPED: there was nothing to check, or no way to; the finding says why.
        WARNING: it works, and somebody should look at it.
        BROKEN: something does not work, or what was acked is in danger.
    """

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    BROKEN = "broken"


_EXIT_CODES: Final = {Severity.OK: 0, Severity.SKIPPED: 0, Severity.WARNING: 1, Severity.BROKEN: 2}


class Finding(msgspec.Struct, frozen=True):
    """What a check found; no text holds a secret.

    Attributes:
        check: the name of the check.
        severity: how bad it is.
        what: what was found.
        why: why it matters; empty where nothing is wrong.
        remedy: the command that mends it, or what to change where; empty where nothing is wrong.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """Returns a finding of something that is as it should be."""
    return Finding(check, Severity.OK, what)


def skipped(check: str, what: str) -> Finding:
    """Returns a finding of something that was not checked."""
    return Finding(check, Severity.SKIPPED, what)


def warning(check: str, what: str, why: str, remedy: str) -> Finding:
    """Returns a finding of something that somebody should look at."""
    return Finding(check, Severity.WARNING, what, why, remedy)


def broken(check: str, what: str, why: str, remedy: str) -> Finding:
    """Returns a finding of something that does not work."""
    return Finding(check, Severity.BROKEN, what, why, remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """Returns the exit code that findings have together: 0, 1 where the worst is a warning, 2 where it is broken."""
    return max((_EXIT_CODES[finding.severity] for finding in findings), default=0)
