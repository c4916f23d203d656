"""What a program tells one of its processes to do, and how the two speak to each other.

A process gets its order as one line of JSON on its standard input, which stays open: its end, however it comes about,
tells the process to stop, so that none outlives its program. On its standard output it reports how it is, a line of
JSON every second and when it becomes ready. A report replaces the ones before it: one that is lost does no harm.
"""

from __future__ import annotations

from typing import Final

import msgspec

from provgate_broker.settings import RabbitMqSettings

REPORT_INTERVAL_S: Final = 1.0

_PROBLEM_MAX_LENGTH: Final = 300

# A process that ends so would end so again: the program ends too.
FATAL_EXIT_CODE: Final = 3


class ChildOrder(msgspec.Struct, frozen=True):
    """The order of one process.

    Attributes:
        settings: of the program. They may hold secrets, which is why they come through a pipe.
        number: which of the program's processes it is; says what ranges it hosts.
        log_level, log_format: what `set_up_logging` takes.
        statsd: the address that durations are sent to; None for none.
    """

    settings: RabbitMqSettings
    number: int
    log_level: str
    log_format: str
    statsd: str | None = None

    def line(self) -> bytes:
        """Returns the order as a line."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> ChildOrder:
        """Returns the order that a line holds.

        Raises:
            msgspec.MsgspecError: it holds none.
        """
        return msgspec.json.decode(line, type=cls)


class ChildReport(msgspec.Struct, frozen=True):
    """How one process is.

    Attributes:
        registered: whether every consumer was registered, now or before.
        broker_problem: which connection to the broker it lacks; None where it has both.
        storage_problem: why it does not write to the storage; None where it does.
    """

    registered: bool = False
    broker_problem: str | None = None
    storage_problem: str | None = None

    def line(self) -> bytes:
        """Returns the report as a line; short enough that a pipe takes it whole or not at all."""
        cut = msgspec.structs.replace(
            self, broker_problem=_cut(self.broker_problem), storage_problem=_cut(self.storage_problem)
        )
        return msgspec.json.encode(cut) + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> ChildReport:
        """Returns the report that a line holds.

        Raises:
            msgspec.MsgspecError: it holds none.
        """
        return msgspec.json.decode(line, type=cls)


def _cut(problem: str | None) -> str | None:
    # A pipe takes up to 4096 bytes at once (PIPE_BUF), and JSON up to 6 for a character.
    return None if problem is None else problem[:_PROBLEM_MAX_LENGTH]
