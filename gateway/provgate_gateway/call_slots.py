"""How many calls run at once."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from provgate.v1 import errors_pb2
from provgate_gateway import errors


class CallSlots:
    """Lets so many calls run at once, and turns the others away. Belongs to one event loop.

    Args:
        count: how many.
        reason: why the others are turned away, for programs.
        message: the same for people.
    """

    def __init__(
        self,
        count: int,
        reason: errors_pb2.ErrorReason.ValueType = errors_pb2.ERROR_REASON_TOO_MANY_CALLS,
        message: str = "as many calls run as the gateway takes",
    ) -> None:
        self._free = count
        self._reason = reason
        self._message = message

    def take(self) -> Slot:
        """Takes a slot. Raises `CallError` where there is none."""
        if self._free == 0:
            raise errors.exhausted(self._reason, self._message)
        self._free -= 1
        return Slot(self)

    def _give_back(self) -> None:
        self._free += 1


class Slot:
    """The place of one call among those that run. As a context manager it is given back at the end."""

    def __init__(self, slots: CallSlots) -> None:
        self._slots = slots
        self._held = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Lets another call run. May be called again."""
        if self._held:
            self._held = False
            self._slots._give_back()
