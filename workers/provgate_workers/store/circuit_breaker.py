"""Whether the storage can be written to: what one writer finds out is known to all writers of a process."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

from provgate_storage.errors import RetryableStorageError


class _State(Enum):
    OPEN = auto()
    CLOSED = auto()
    ON_TRIAL = auto()


class StorageGate:
    """Lets writes start, or not. Belongs to one event loop.

    Open at first. A write in trouble closes it; on trial a single write decides whether it opens again: a
    database that answers a probe may still refuse every write, when its disk is full for example.
    """

    def __init__(self) -> None:
        self._state = _State.OPEN
        self._verdict: asyncio.Future[None] | None = None
        self._trouble = ""

    @property
    def problem(self) -> str | None:
        """Why writes do not start freely; None where they do."""
        return None if self._state is _State.OPEN else self._trouble

    @property
    def is_open(self) -> bool:
        """Whether writes start freely."""
        return self._state is _State.OPEN

    def admits(self, running_count: int) -> bool:
        """Returns whether another write may start beside those that run."""
        return self._state is _State.OPEN or (self._state is _State.ON_TRIAL and running_count == 0)

    def note_success(self) -> None:
        """Tells of a write that went well. It counts when the gate is on trial: others may have begun before."""
        if self._state is _State.ON_TRIAL:
            self._state = _State.OPEN
            self._decide(None)

    def note_trouble(self, trouble: RetryableStorageError) -> bool:
        """Tells of a write in trouble. Returns whether the gate was open until now: somebody has to open it again."""
        was_open = self._state is _State.OPEN
        self._state = _State.CLOSED
        self._trouble = str(trouble)
        self._decide(trouble)
        return was_open

    def begin_trial(self) -> asyncio.Future[None]:
        """Lets one write start. The future is done when it has ended: the gate is open then.

        It raises `RetryableStorageError` where the write was in trouble; the gate is closed again then.
        """
        self._state = _State.ON_TRIAL
        self._verdict = asyncio.get_running_loop().create_future()
        return self._verdict

    def _decide(self, trouble: RetryableStorageError | None) -> None:
        verdict, self._verdict = self._verdict, None
        if verdict is None or verdict.done():
            return
        if trouble is None:
            verdict.set_result(None)
        else:
            verdict.set_exception(trouble)
