"""One write through the gateway that goes on while a test breaks something, and how far it has come."""

from __future__ import annotations

import threading
from collections.abc import Sized
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self

from provgate_client.adapter.progress import WriteProgress
from provgate_client.storage import ProvenanceStorageGrpc
from tests.support.loss_checker import Checker
from tests.support.polling import eventually

_END_S: Final = 150.0


class WatchedWrite:
    """A write in a thread of its own, in one call that is not repeated. A context manager.

    Args:
        address: of the gateway.
        checker: records the write.
        method: of the storage interface; one that takes a collection of entries.
        entries: what is written.
    """

    def __init__(self, address: str, checker: Checker, method: str, entries: Sized) -> None:
        self._entry_count = len(entries)
        self._progress = WriteProgress()
        self._result: Future[bool] = Future()
        self._storage = ProvenanceStorageGrpc(
            url=address, retry_time_s=0.0, raise_on_failure=True, progress=self._on_progress
        )
        self._thread = threading.Thread(target=self._run, args=(checker, method, entries), name="watched write")

    def __enter__(self) -> Self:
        self._storage.open()
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._storage.close()
        self._thread.join()

    @property
    def acked_count(self) -> int:
        """The entries that the gateway has said to be committed."""
        return self._progress.acked_count

    @property
    def done(self) -> bool:
        """Whether the write has ended."""
        return self._result.done()

    def wait_published(self, count: int | None = None, timeout_s: float = 30.0) -> None:
        """Returns when the broker has so many entries, or all of them."""
        wanted = self._entry_count if count is None else count
        eventually(lambda: self._progress.published_count >= wanted, f"{wanted} entries are published", timeout_s)

    def wait_acked(self, count: int, timeout_s: float = 30.0) -> None:
        """Returns when so many entries are acked."""
        eventually(lambda: self.done or self.acked_count >= count, f"{count} entries are acked", timeout_s)

    def result(self) -> bool:
        """Waits for the end of the write, which must be acked, and each entry once. Raises what it raised."""
        acked = self._result.result(_END_S)
        assert acked
        assert self._progress == WriteProgress(*(self._entry_count,) * 3)
        return acked

    def error(self) -> BaseException | None:
        """Waits for the end of the write, and returns what it raised."""
        return self._result.exception(_END_S)

    def _run(self, checker: Checker, method: str, entries: Sized) -> None:
        try:
            self._result.set_result(checker.write(self._storage, method, entries))
        except Exception as error:  # noqa: BLE001 - it is the result
            self._result.set_exception(error)

    def _on_progress(self, method: str, progress: WriteProgress) -> None:
        assert self._entry_count >= progress.received_count >= progress.published_count >= progress.acked_count
        self._progress = progress
