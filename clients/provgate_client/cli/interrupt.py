"""Ctrl-C while calls are under way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from provgate_client.adapter import ProvenanceStorageGrpc

# Who enters `threading.Condition`, which is done in Python: an exception between the lock and the body leaves the lock
# taken, and whoever needs it next waits for ever.
_LOCKING: Final = frozenset({"grpc", "threading", "concurrent"})

_PATIENCE_S: Final = 3.0


@contextmanager
def interruptible(storage: ProvenanceStorageGrpc) -> Iterator[None]:
    """Ends the block with `KeyboardInterrupt` when Ctrl-C is pressed, and closes `storage`, so that its calls end.

    Those of other threads too, for which the main thread would then wait, perhaps for minutes. Where the main thread
    may hold a lock, its call is what ends the block, within `_PATIENCE_S`; a second Ctrl-C raises at once. Only the
    main thread may enter it.
    """
    happened = False
    ended = threading.Event()

    def insist() -> None:
        if not ended.wait(_PATIENCE_S):
            os.kill(os.getpid(), signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal happened
        again, happened = happened, True
        threading.Thread(target=storage.close, name="close", daemon=True).start()
        if not again:
            threading.Thread(target=insist, name="insist", daemon=True).start()
        if again or not _may_hold_a_lock(frame):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if happened:
            raise KeyboardInterrupt from error
        raise
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)


def _may_hold_a_lock(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _LOCKING:
            return True
        frame = frame.f_back
    return False
