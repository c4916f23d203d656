"""Random writes and reads through two gateways while faults are drawn at random.

SOAK_MINUTES says how long (one minute by default), SOAK_SEED repeats the draws of an earlier run: which fault comes
when, and what the clients do. How the two meet is never the same twice.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, free_ports
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_storage import ProvenanceStorageInterface
from tests.faults.footprint import MemoryWatch
from tests.faults.soak_clients import Client, Tally
from tests.faults.soak_faults import Scene, draws
from tests.faults.system import RECOVERED_S, over, postgresql_system_on
from tests.support.link import Link
from tests.support.polling import eventually

MINUTES: Final = float(os.environ.get("SOAK_MINUTES") or 1)
SEED: Final = int(os.environ.get("SOAK_SEED") or secrets.randbelow(10**9))

CLIENT_COUNT: Final = 4
STEADY_S: Final = 12.0
RECOVERY_S: Final = 120.0
END_S: Final = 180.0

RANGES: Final = dict.fromkeys(("content", "directory", "location", "origin", "revision"), 4)

# A connection that is reset between the end of connect(2) and pika's callback for it: pika raises at its event loop,
# and the attempt ends only with its timeout. The programs recover from it.
PIKA_RACE: Final = re.compile(
    r"Exception in callback None\(\)\\n.*?\n +ValueError: Expected connected socket", re.DOTALL
)

pytestmark = pytest.mark.faults


@pytest.fixture
def scene(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[Scene]:
    """Two worker programs and two gateways that reach their servers over links."""
    with (
        Link(LOOPBACK, rabbitmq_node.port) as broker,
        Link(LOOPBACK, postgres_cluster.port) as database,
        # A short heartbeat and lock timeout, so that programs notice a fault of some seconds.
        postgresql_system_on(
            rabbitmq_node, postgres_cluster, stack_directory, broker, ranges=RANGES, heartbeat=2
        ) as system,
    ):
        linked = postgresql_storage(over(database, system.dsn), lock_timeout_s=2)
        system.start({"storage_config": linked}, storage_config=linked)
        system.stack.start_workers(storage_config=linked)
        system.stack.start_gateway(listen=f"{LOOPBACK}:{free_ports(1)[0]}", storage_config=linked)
        yield Scene(system, postgres_cluster, broker, database)


class Soak:
    """One run."""

    def __init__(self, scene: Scene, storages: list[ProvenanceStorageInterface]) -> None:
        self.checker = scene.system.checker
        self.tally = Tally()
        self.memory = MemoryWatch()
        self.faults: Counter[str] = Counter()
        self._scene = scene
        self._storages = storages
        self._began_s = time.monotonic()
        self._stopping = threading.Event()
        self._clients = [
            Client(f"{SEED}-{number}", storages, self.checker, self.tally, self._stopping)
            for number in range(CLIENT_COUNT)
        ]

    def run(self) -> None:
        """Lets the clients work while faults come, and returns when all is well again and the clients have ended."""
        for client in self._clients:
            client.start()
        try:
            self._be_steady()
            for draw in draws(SEED):
                if self._elapsed_s > MINUTES * 60 - STEADY_S or self.tally.failures:
                    break
                time.sleep(draw.after_s)
                self._measure()
                kind = f"{draw.subject} {draw.fault}"
                say(f"{self._elapsed_s:7.1f} s  {kind}")
                self.faults[kind] += 1
                self._scene.inflict(draw)
            self._wait_recovered()
            self._be_steady()
        finally:
            self._stopping.set()
        deadline = time.monotonic() + END_S
        for client in self._clients:
            client.join(max(0.0, deadline - time.monotonic()))
            assert not client.is_alive(), f"{client.name} hangs"

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _be_steady(self) -> None:
        end_s = time.monotonic() + STEADY_S
        while time.monotonic() < end_s:
            time.sleep(1.5)
            self._measure()

    def _measure(self) -> None:
        programs = self._scene.programs
        assert all(program.alive for program in programs), "a program ended by itself"
        self.memory.measure((Path(program.command[0]).name, program.pid) for program in programs)

    def _wait_recovered(self) -> None:
        """Waits until a write through each of the storages is acked."""
        deadline = time.monotonic() + RECOVERY_S
        for number, storage in enumerate(self._storages):
            while not self.tally.run("write probe", self._probe, storage):
                assert time.monotonic() < deadline, f"storage {number} does not recover"
                time.sleep(0.5)

    def _probe(self, storage: ProvenanceStorageInterface) -> bool:
        return self.checker.write(storage, "location_add", {b"probe/%d" % byte for byte in range(64)})

    def report(self) -> None:
        """Prints the figures."""
        tally = self.tally
        say(f"{self._elapsed_s:.0f} s, {sum(tally.calls.values())} calls, the longest {tally.longest_s:.1f} s")
        say(f"entries: {tally.attempted_count} attempted, {tally.acked_count} acked")
        say(f"calls: {dict(sorted(tally.calls.items()))}")
        say(f"declined: {dict(tally.declined.most_common())}")
        say(f"faults: {sum(self.faults.values())}, {dict(sorted(self.faults.items()))}")
        for line in (*self.memory.report(), *tally.failures):
            say(line)


def say(text: str) -> None:
    """Prints a line, at once where pytest does not capture it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def settings_of(address: str) -> Iterator[dict[str, Any]]:
    """Yields the settings of two adapters of a gateway: one that is patient and returns, one that is not and raises."""
    yield {"url": address}
    yield {"url": address, "retry_time_s": 2, "write_timeout_s": 20, "stream_timeout_s": 20, "raise_on_failure": True}


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_faults_at_random_lose_nothing(scene: Scene) -> None:
    say(f"\nseed {SEED}: SOAK_MINUTES={MINUTES:g} SOAK_SEED={SEED}")
    system = scene.system
    with ExitStack() as opened:
        storages: list[ProvenanceStorageInterface] = [
            opened.enter_context(ProvenanceStorageGrpc(**settings))
            for gateway in system.stack.gateways
            for settings in settings_of(gateway.address)
        ]
        soak = Soak(scene, storages)
        try:
            soak.run()
        finally:
            soak.report()
    assert not soak.tally.failures
    eventually(lambda: system.message_count() == 0, "all packages are stored", RECOVERED_S)
    system.check_nothing_set_aside()
    assert [program.terminate() for program in scene.programs] == [0] * 4
    system.check()
    soak.memory.check()
    for program in scene.programs:
        unexpected = PIKA_RACE.sub("", program.log_path.read_text())
        assert "Traceback" not in unexpected, unexpected[unexpected.index("Traceback") - 500 :][:4000]
