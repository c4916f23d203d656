"""What a program tells one of its processes to do, and how the two speak to each other.

A process gets its order as one line of JSON on its standard input, which stays open: its end, however it comes about,
tells the process to stop, so that none outlives its program. On its standard output it says when it is ready.
"""

from __future__ import annotations

from typing import Final

import msgspec

from provgate_broker.settings import RabbitMqSettings

READY_LINE: Final = b"ready\n"

# A process that ends so would end so again: the program ends too.
FATAL_EXIT_CODE: Final = 3


class ChildOrder(msgspec.Struct, frozen=True):
    """The order of one process.

    Attributes:
        settings: of the program. They may hold secrets, which is why they come through a pipe.
        number: which of the program's processes it is; says what ranges it hosts.
        log_level: one that `set_up_logging` takes.
    """

    settings: RabbitMqSettings
    number: int
    log_level: str

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
