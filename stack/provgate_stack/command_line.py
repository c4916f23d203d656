"""How the command lines of stack and benchmarks end."""

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
    """The user, or the system, asked the launcher to end.

    Attributes:
        exit_code: as a shell reports a program that the signal ended.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def raise_when_interrupted() -> None:
    """Makes the first signal raise `Interrupted` in the main thread, and ignores those that follow.

    What then cleans up cannot be interrupted a second time. A signal that is ignored already, as by nohup, stays so.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keeps signals from raising within; one that came raises at the end, unless the block raised by itself."""
    came: list[int] = []
    previous = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _raise(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def run_command_line(command: Callable[[], object]) -> None:
    """Runs a command; an interruption ends it as the signal would have, after everything is cleaned up."""
    raise_when_interrupted()
    try:
        command()
    except StackError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as interrupted:
        print("Interrupted.", file=sys.stderr)
        sys.exit(interrupted.exit_code)
