"""Ctrl-C while threads write."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from provgate_client.adapter import ProvenanceStorageGrpc


class Interruption:
    """Whether Ctrl-C was pressed.

    Attributes:
        happened: true from the first time on.
    """

    def __init__(self) -> None:
        self.happened = False


@contextmanager
def closed_on_interrupt(storage: ProvenanceStorageGrpc) -> Iterator[Interruption]:
    """Closes `storage` when Ctrl-C is pressed, beside the `KeyboardInterrupt` that the main thread gets.

    That alone would not reach the calls of other threads, for which the main thread then waits, perhaps for minutes.
    Only the main thread may enter it.
    """
    interruption = Interruption()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interruption.happened = True
        # On a thread of its own: the main thread may have been stopped anywhere, also where it holds a lock of gRPC's.
        threading.Thread(target=storage.close, name="close", daemon=True).start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)
