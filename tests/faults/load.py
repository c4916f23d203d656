"""Writes that go on while a test breaks something."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from provgate_client.adapter.progress import WriteProgress
from provgate_client.errors import CallError, StorageClosedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.stack import StorageConfig
from provgate_storage import RelationData, RelationType, RevisionData, get_provenance_storage
from tests.support.loss_checker import Checker

_ENTRY_COUNT: Final = 100
_PAUSE_S: Final = 0.03
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ORIGINS: Final = {
    hashlib.sha1(url).digest(): url.decode() for url in (b"https://example.org/%d" % n for n in range(50))
}

# Far more than any fault of the suite lasts: a test fails by its own bounds first.
_NEVER_S: Final = 250.0


class Load:
    """Threads that write entries of every kind through one adapter. A context manager; it stops the threads.

    Calls are not repeated by the adapter unless `retry_time_s` is given: a write that is acked is then one call that
    ended with OK.

    Args:
        address: of the gateway.
        checker: records every write.
        thread_count: how many write at once.
        **settings: of the adapter.

    Attributes:
        acked_count: the writes that are acked.
        failures: what the others raised.
    """

    def __init__(self, address: str, checker: Checker, thread_count: int = 3, **settings: Any) -> None:
        self.acked_count = 0
        self.failures: list[CallError] = []
        self._checker = checker
        self._storage = ProvenanceStorageGrpc(
            **{"url": address, "retry_time_s": 0.0, "raise_on_failure": True, "write_timeout_s": _NEVER_S, **settings}
        )
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._write, args=(random_writes(number),), name=f"load-{number}")
            for number in range(thread_count)
        ]

    def __enter__(self) -> Self:
        self._storage.open()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        # Cancels what is under way, where a test has failed in between.
        self._storage.close()
        self._join()

    def wait_for_acks(self, timeout_s: float = 60.0) -> None:
        """Returns when every thread has had a write acked that it began after this was called."""
        wanted = self.acked_count + 2 * len(self._threads)
        deadline = time.monotonic() + timeout_s
        while self.acked_count < wanted:
            assert time.monotonic() < deadline, f"no acks within {timeout_s} s; failures: {self.failures[-3:]}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Begins no more writes, and returns when those under way have ended."""
        self._stopping.set()
        self._join()

    def _join(self) -> None:
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
            self._stopping.wait(_PAUSE_S)


class Writing:
    """Single writes in threads of their own, through one adapter. A context manager.

    Args:
        address: of the gateway.
        checker: records every write.
        **settings: of the adapter.
    """

    def __init__(self, address: str, checker: Checker, **settings: Any) -> None:
        self._published_count = 0
        self._checker = checker
        self._storage = ProvenanceStorageGrpc(
            progress=self._on_progress, **{"url": address, "raise_on_failure": True, "retry_time_s": 0.0, **settings}
        )
        self._threads = ThreadPoolExecutor(thread_name_prefix="writing", max_workers=32)

    def __enter__(self) -> Self:
        self._storage.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._storage.close()
        self._threads.shutdown()

    def begin(self, method: str, *arguments: Any) -> Future[bool]:
        """Begins a write."""
        return self._threads.submit(self._checker.write, self._storage, method, *arguments)

    def wait_published(self, count: int, timeout_s: float = 30.0) -> None:
        """Returns when the broker has so many entries of one write."""
        deadline = time.monotonic() + timeout_s
        while self._published_count < count:
            assert time.monotonic() < deadline, f"{self._published_count} of {count} are published"
            time.sleep(0.02)

    def _on_progress(self, method: str, progress: WriteProgress) -> None:
        self._published_count = max(self._published_count, progress.published_count)


def random_writes(seed: int) -> Iterator[tuple[Any, ...]]:
    """Yields writes of every method and relation in turn, without end: method and arguments."""
    draw = random.Random(seed)
    known = [draw.randbytes(20) for _ in range(1000)]

    def ids() -> list[bytes]:
        # Some of them are new, some are met again and merged.
        return [draw.choice(known) if draw.random() < 0.3 else draw.randbytes(20) for _ in range(_ENTRY_COUNT)]

    def date() -> datetime:
        return _EPOCH + timedelta(seconds=draw.randrange(10**9))

    def rows(relation: RelationType) -> dict[bytes, set[RelationData]]:
        path = draw.randbytes(30).replace(b"\0", b"/") if relation.has_path else None
        return {id: {RelationData(draw.choice(known), path)} for id in ids()}

    while True:
        yield "content_add", {id: date() for id in ids()}
        yield "directory_add", {id: date() for id in ids()}
        yield "revision_add", {id: RevisionData(date(), draw.choice([*_ORIGINS])) for id in ids()}
        yield "origin_add", dict(draw.sample([*_ORIGINS.items()], 10))
        yield "location_add", {draw.randbytes(20).replace(b"\0", b"/") for _ in range(_ENTRY_COUNT)}
        for relation in RelationType:
            yield "relation_add", relation, rows(relation)


def check(checker: Checker, storage_config: StorageConfig) -> None:
    """Compares what a database holds with what the checker recorded."""
    with get_provenance_storage(**storage_config) as held:
        checker.check(held)


def check_all_acked(load: Load, checker: Checker, storage_config: StorageConfig) -> None:
    """Ends a load of which every call must have ended with OK, and compares what the database holds."""
    load.stop()
    assert not load.failures
    assert load.acked_count == len(checker.calls)
    check(checker, storage_config)
