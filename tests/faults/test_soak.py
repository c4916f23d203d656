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
from urllib.parse import urlsplit, urlunsplit

import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK, free_ports
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from provgate_storage import ProvenanceStorageInterface, get_provenance_storage
from tests.faults.soak_faults import Scene, draws
from tests.faults.soak_load import Client, Tally
from tests.faults.soak_memory import MemoryWatch
from tests.support.broker import message_count
from tests.support.link import Link
from tests.support.loss_checker import Checker
from tests.support.packages import AmqpSender

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
def links(rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster) -> Iterator[tuple[Link, Link]]:
    with Link(LOOPBACK, rabbitmq_node.port) as broker, Link(LOOPBACK, postgres_cluster.port) as database:
        yield broker, database


@pytest.fixture
def soaked_stack(
    broker_url: str, database_dsn: str, links: tuple[Link, Link], stack_directory: StackDirectory
) -> Iterator[Stack]:
    """Two worker programs and two gateways that reach their servers over the links."""
    broker, database = links
    # A short heartbeat and lock timeout, so that a fault of some seconds is one that is noticed.
    storage_config = postgresql_storage(over(database, database_dsn), lock_timeout_s=2)
    overrides = {"rabbitmq": {"ranges": RANGES, "heartbeat": 2}}
    url, name = over(broker, broker_url), f"soak-{secrets.token_hex(4)}"
    stack = Stack(url, storage_config, stack_directory, overrides, name)
    stack.start()
    stack.start_workers()
    stack.start_gateway(listen=f"{LOOPBACK}:{free_ports(1)[0]}")
    yield stack
    stack.kill()


def over(link: Link, url: str) -> str:
    """Returns the URL of a server with the link in its place."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@{LOOPBACK}:{link.port}"))


class Soak:
    """One run."""

    def __init__(self, scene: Scene, storages: list[ProvenanceStorageInterface]) -> None:
        self.checker = Checker()
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
            for draw in draws(SEED, list(self._scene.faults)):
                if self._elapsed_s > MINUTES * 60 - STEADY_S or self.tally.failures:
                    break
                time.sleep(draw.after_s)
                self._measure()
                say(f"{self._elapsed_s:7.1f} s  {draw.kind}")
                self.faults[draw.kind] += 1
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
            while not self.tally.run("write probe", lambda storage=storage: self._probe(storage)):  # type: ignore[misc]
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
def test_faults_at_random_lose_nothing(
    soaked_stack: Stack,
    rabbitmq_node: RabbitMqNode,
    postgres_cluster: PostgreSqlCluster,
    links: tuple[Link, Link],
    broker_url: str,
    storage_config: StorageConfig,
) -> None:
    say(f"\nseed {SEED}: SOAK_MINUTES={MINUTES:g} SOAK_SEED={SEED}")
    scene = Scene(soaked_stack, rabbitmq_node, postgres_cluster, *links)
    with ExitStack() as opened:
        storages: list[ProvenanceStorageInterface] = [
            opened.enter_context(ProvenanceStorageGrpc(**settings))
            for gateway in soaked_stack.gateways
            for settings in settings_of(gateway.address)
        ]
        soak = Soak(scene, storages)
        try:
            soak.run()
        finally:
            soak.report()
    assert not soak.tally.failures

    with AmqpSender(broker_url) as sender:
        sender.wait_until(lambda: not message_count(rabbitmq_node, broker_url), 60)
        assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0
    assert [program.terminate() for program in scene.programs] == [0] * 4
    with get_provenance_storage(**storage_config) as held:
        soak.checker.check(held)
    soak.memory.check()
    for program in scene.programs:
        unexpected = PIKA_RACE.sub("", program.log_path.read_text())
        assert "Traceback" not in unexpected, unexpected[unexpected.index("Traceback") - 500 :][:4000]
