"""How many calls run at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provgate.v1 import errors_pb2
from provgate_gateway import errors


class CallSlots:
    """Lets so many calls run at once, and turns the others away. Belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self._free = count

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Takes a slot for as long as the call runs. Raises `CallError` where there is none."""
        if self._free == 0:
            raise errors.exhausted(errors_pb2.ERROR_REASON_TOO_MANY_CALLS, "as many calls run as the gateway takes")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
