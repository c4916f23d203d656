"""Memory as proportional set sizes, which divide shared pages among the processes that share them."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final, Self

import psutil

from bench.measure.clients import Clients
from bench.session import Session
from bench.subjects import GATEWAY
from bench.writes import loads
from bench.writes.loads import Write

_MIB: Final = 1024 * 1024
_ENTRIES: Final = 1_000_000
_EVERY_S: Final = 0.05

GATEWAY_PEAK: Final = "gateway, most during a call of 1,000,000"
CLIENT_GROWTH: Final = "client, growth during a call of 1,000,000"
WORKERS_AFTER: Final = "workers, after a call of 1,000,000"
WORKERS_AT_END: Final = "workers, after all writes"
GATEWAY_AT_END: Final = "gateway, after all writes"


class Peaks:
    """The peak memory of processes during a block, sampled twenty times a second.

    Args:
        measured: by name, a function that returns the MiB now.

    Attributes:
        mib: the peak of each.
    """

    def __init__(self, measured: dict[str, Callable[[], float]]) -> None:
        self.mib = dict.fromkeys(measured, 0.0)
        self._measured = measured
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            for name, mib in self._measured.items():
                self.mib[name] = max(self.mib[name], mib())


def pss_mib(pids: Iterable[int]) -> float:
    """Returns the MiB of processes and all their descendants."""
    total = 0
    for pid in pids:
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
    return total / _MIB


def measure_million(session: Session) -> None:
    """Writes a million contents in one call, and measures client, gateway and workers."""
    subject = session.subjects.get(GATEWAY)
    subject.database.empty()
    with Clients(subject.writers, _million) as clients:
        clients.make(secrets.token_hex(8))
        clients.made()
        client = partial(pss_mib, clients.pids)
        before = client()
        with Peaks({"gateway": partial(pss_mib, _gateways(session)), "client": client}) as peaks:
            clients.go()
    session.results.memory_mib |= {
        GATEWAY_PEAK: peaks.mib["gateway"],
        CLIENT_GROWTH: peaks.mib["client"] - before,
        WORKERS_AFTER: pss_mib(_workers(session)),
    }


def measure_at_end(session: Session) -> None:
    """Measures gateway and workers after all writes, when no other process shares pages with them."""
    session.subjects.close()
    session.results.memory_mib |= {
        GATEWAY_AT_END: pss_mib(_gateways(session)),
        WORKERS_AT_END: pss_mib(_workers(session)),
    }


def _million(source: random.Random) -> list[Write]:
    return [loads.contents(source, _ENTRIES)]


def _gateways(session: Session) -> list[int]:
    return [session.stack.gateways[0].pid]


def _workers(session: Session) -> list[int]:
    return [program.pid for program in session.stack.workers if program.alive]
