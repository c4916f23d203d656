"""The messages between a worker program and its processes, a line of JSON each.

A process reads its order from standard input, which stays open: its end tells the process to stop, however it comes
about, so that no process outlives its program. The process writes reports to standard output, every second and when it
becomes ready. A report replaces the ones before it: losing one does no harm.
"""

from __future__ import annotations

from typing import Final

import msgspec

from provgate_broker.settings import RabbitMqSettings

REPORT_INTERVAL_S: Final = 1.0

_PROBLEM_MAX_LENGTH: Final = 300

# Exit code of a process that would end the same way again: the program ends too.
FATAL_EXIT_CODE: Final = 3


class ChildOrder(msgspec.Struct, frozen=True):
    """The order of one process.

    Attributes:
        settings: of the program. They may hold secrets, which is why they come through a pipe.
        number: of the process in its program; it decides which ranges the process hosts.
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
        """Returns the order that a line holds. Raises `msgspec.MsgspecError` if it holds none."""
        return msgspec.json.decode(line, type=cls)


class ChildReport(msgspec.Struct, frozen=True):
    """How one process is.

    Attributes:
        registered: whether every consumer was registered, now or before.
        broker_problem: which connection to the broker it lacks; None if it has both.
        storage_problem: why it does not write to the storage; None if it does.
    """

    registered: bool = False
    broker_problem: str | None = None
    storage_problem: str | None = None

    def line(self) -> bytes:
        """Returns the report as a line, short enough that a pipe takes it whole or not at all."""
        # A pipe takes up to 4096 bytes at once (PIPE_BUF), and JSON up to 6 for a character.
        cut = msgspec.structs.replace(
            self,
            broker_problem=self.broker_problem and self.broker_problem[:_PROBLEM_MAX_LENGTH],
            storage_problem=self.storage_problem and self.storage_problem[:_PROBLEM_MAX_LENGTH],
        )
        return msgspec.json.encode(cut) + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> ChildReport:
        """Returns the report that a line holds. Raises `msgspec.MsgspecError` if it holds none."""
        return msgspec.json.decode(line, type=cls)
