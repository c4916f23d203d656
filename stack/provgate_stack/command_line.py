"""Interruptions of the command lines of launcher and benchmark: the first signal cleans up, later ones do nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from provgate_stack.errors import StackError

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user or the system asked the launcher to end.

    Attributes:
        exit_code: the exit code by which a shell reports the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def raise_when_interrupted() -> None:
    """Makes the first signal raise `Interrupted` in the main thread. Later ones are ignored, so clean-up completes.

    A signal that is ignored already, as by nohup, stays ignored.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays signals to the end of the block. If the block raises, they are dropped."""
    pending: list[int] = []
    previous = {number: signal.signal(number, lambda number, _: pending.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if pending:
        signal.raise_signal(pending[0])


def run_command_line(command: Callable[[], object]) -> None:
    """Runs a command, and exits with 1 after a `StackError`, or as the signal says after an interruption."""
    raise_when_interrupted()
    try:
        command()
    except StackError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as interrupted:
        print("Interrupted.", file=sys.stderr)
        sys.exit(interrupted.exit_code)


def _raise(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
