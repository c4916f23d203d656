"""Writes that go on while a test breaks something."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from provgate_client.adapter.progress import WriteProgress
from provgate_client.errors import CallError, StorageClosedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_storage import RelationData, RelationType, RevisionData
from tests.support.loss_checker import Checker
from tests.support.polling import eventually

_ENTRY_COUNT: Final = 100
_PAUSE_S: Final = 0.03
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ORIGINS: Final = {
    hashlib.sha1(url).digest(): url.decode() for url in (b"https://example.org/%d" % n for n in range(50))
}

# Much longer than any fault of the suite: a test fails by its own bounds first.
_NEVER_S: Final = 250.0
_END_S: Final = 150.0


class Load:
    """Three threads that write entries of every kind through one adapter. A context manager; it stops the threads.

    The adapter repeats no call: an acked write is one call that ended with OK.

    Args:
        address: of the gateway.
        checker: records every write.

    Attributes:
        acked_count: the writes that are acked.
        failures: what the others raised, or that they returned False.
    """

    def __init__(self, address: str, checker: Checker) -> None:
        self.acked_count = 0
        self.failures: list[object] = []
        self._checker = checker
        self._storage = ProvenanceStorageGrpc(
            url=address, retry_time_s=0.0, raise_on_failure=True, write_timeout_s=_NEVER_S
        )
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._write, args=(random_writes(number),), name=f"load-{number}")
            for number in range(3)
        ]

    def __enter__(self) -> Self:
        self._storage.open()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        # Cancels the calls in flight if the test has failed.
        self._storage.close()
        self.stop()

    def wait_for_acks(self, timeout_s: float = 60.0) -> None:
        """Returns when every thread has had a write acked that it began after this call."""
        wanted = self.acked_count + 2 * len(self._threads)
        eventually(lambda: self.acked_count >= wanted, f"writes are acked; failures: {self.failures[-3:]}", timeout_s)

    def stop(self) -> None:
        """Begins no more writes, and returns when those in flight have ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_NEVER_S)
            assert not thread.is_alive(), "a write hangs"

    def _write(self, writes: Iterator[tuple[Any, ...]]) -> None:
        while not self._stopping.is_set():
            method, *arguments = next(writes)
            try:
                acked = self._checker.write(self._storage, method, *arguments)
            except CallError as error:
                self.failures.append(error)
            except StorageClosedError:
                return
            else:
                with self._lock:
                    self.acked_count += acked
                    self.failures += [] if acked else [f"{method} returned False"]
            self._stopping.wait(_PAUSE_S)


class Writing:
    """Single writes in threads of their own, through one adapter. A context manager.

    Args:
        address: of the gateway.
        checker: records every write.
        **settings: of the adapter.

    Attributes:
        progress: how far the write has come that has come furthest.
    """

    def __init__(self, address: str, checker: Checker, **settings: Any) -> None:
        self.progress = WriteProgress()
        self._checker = checker
        self._storage = ProvenanceStorageGrpc(
            progress=self._on_progress, **{"url": address, "raise_on_failure": True, "retry_time_s": 0.0, **settings}
        )
        self._threads = ThreadPoolExecutor(thread_name_prefix="writing", max_workers=32)

    def __enter__(self) -> Self:
        self._storage.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.close()
        self._threads.shutdown()

    def begin(self, method: str, *arguments: Any) -> Future[bool]:
        """Begins a write."""
        return self._threads.submit(self._checker.write, self._storage, method, *arguments)

    def wait_published(self, count: int, timeout_s: float = 60.0) -> None:
        """Returns when the broker has this many entries of one write."""
        eventually(lambda: self.progress.published_count >= count, f"{count} entries are published", timeout_s)

    def _on_progress(self, method: str, progress: WriteProgress) -> None:
        assert progress.received_count >= progress.published_count >= progress.acked_count
        self.progress = max(self.progress, progress, key=lambda each: (each.acked_count, each.published_count))


class WatchedWrite(Writing):
    """One write, in one call that the adapter does not repeat. It begins when the context is entered.

    Args:
        address: of the gateway.
        checker: records the write.
        method: of the storage interface; one that takes a collection of entries.
        entries: what is written.
    """

    def __init__(self, address: str, checker: Checker, method: str, entries: Sized) -> None:
        super().__init__(address, checker)
        self._method = method
        self._entries = entries
        self._result: Future[bool] = Future()

    def __enter__(self) -> Self:
        super().__enter__()
        self._result = self.begin(self._method, self._entries)
        return self

    @property
    def done(self) -> bool:
        """Whether the write has ended."""
        return self._result.done()

    def wait_all_published(self) -> None:
        """Returns when the broker has all entries."""
        self.wait_published(len(self._entries))

    def wait_first_ack(self) -> None:
        """Returns when an entry is acked."""
        eventually(lambda: self.done or self.progress.acked_count > 0, "an entry is acked", 60)

    def result(self) -> None:
        """Waits for the end of the write, which must be acked, and each entry once. Raises what the write raised."""
        assert self._result.result(_END_S)
        assert self.progress == WriteProgress(*(len(self._entries),) * 3)

    def error(self) -> BaseException | None:
        """Waits for the end of the write, and returns what it raised."""
        return self._result.exception(_END_S)


def random_writes(seed: int) -> Iterator[tuple[Any, ...]]:
    """Yields writes of every method and relation in turn, without end: method and arguments."""
    draw = random.Random(seed)
    known = [draw.randbytes(20) for _ in range(1000)]

    def ids() -> list[bytes]:
        # Some are new, some come again and are merged.
        return [draw.choice(known) if draw.random() < 0.3 else draw.randbytes(20) for _ in range(_ENTRY_COUNT)]

    def date() -> datetime:
        return _EPOCH + timedelta(seconds=draw.randrange(10**9))

    def path() -> bytes:
        return draw.randbytes(30).replace(b"\0", b"/")

    while True:
        yield "content_add", {id: date() for id in ids()}
        yield "directory_add", {id: date() for id in ids()}
        yield "revision_add", {id: RevisionData(date(), draw.choice([*_ORIGINS])) for id in ids()}
        yield "origin_add", dict(draw.sample([*_ORIGINS.items()], 10))
        yield "location_add", {path() for _ in range(_ENTRY_COUNT)}
        for relation in RelationType:
            shared = path() if relation.has_path else None
            yield "relation_add", relation, {id: {RelationData(draw.choice(known), shared)} for id in ids()}
