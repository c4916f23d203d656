"""How a gateway starts, refuses to start, and ends."""

from __future__ import annotations

import re
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg2.extensions import make_dsn, parse_dsn

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.directory import StackDirectory
from provgate_stack.process import ChildProgram
from provgate_stack.stack import Stack
from tests.faults.link import Link, Mode
from tests.integration.gateway_calls import (
    OpenWrite,
    connected,
    contents,
    eventually,
    health,
    outcome_of_unary,
    write,
)
from tests.integration.scripted_workers import ScriptedWorkers, in_full, silent

MakeStack = Callable[..., Stack]


@pytest.fixture
def make_stack(
    workerless_stack: Stack, module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[MakeStack]:
    """Makes a stack on the module's servers with settings of its own."""
    made: list[Stack] = []

    def make(postgres_dsn: str = module_postgres_dsn, amqp_url: str = module_amqp_url, **overrides: Any) -> Stack:
        name = f"start-{secrets.token_hex(4)}"
        made.append(Stack(amqp_url, postgres_dsn, stack_directory, overrides, name=name))
        return made[-1]

    yield make
    for stack in made:
        stack.kill()


def _end_of(program: ChildProgram, timeout_s: float = 20.0) -> tuple[int, str]:
    """Returns exit code and log of a gateway that does not start."""
    eventually(lambda: not program.alive, "the program ends", timeout_s)
    return program.terminate(), program.log_path.read_text(encoding="utf-8")


def _failed_start(stack: Stack, **settings: Any) -> tuple[int, str]:
    program = stack.start_gateway(wait=False, **settings)
    code, log = _end_of(program)
    assert not program.ready_file.exists()
    assert "Traceback" not in log
    return code, log


def _with_path(stub: ProvenanceStorageStub) -> bool:
    return outcome_of_unary(lambda: stub.WithPath(pb2.WithPathRequest(), timeout=3)).ok


# Of the addresses of `localhost` another one may be free.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_taken_port_is_not_shared(make_stack: MakeStack, host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"{host}:{taken.getsockname()[1]}"
        code, log = _failed_start(make_stack(), listen=address)
    assert code == 1
    assert f"{address} cannot be served on: the port is taken" in log


def test_the_port_of_another_gateway_is_not_shared(make_stack: MakeStack) -> None:
    stack = make_stack()
    first = stack.start_gateway()
    code, log = _failed_start(stack, listen=first.address)
    assert code == 1
    assert "the port is taken" in log
    with connected(first.address) as (_, stub):
        assert _with_path(stub)


def test_an_address_that_is_not_of_this_machine(make_stack: MakeStack) -> None:
    code, log = _failed_start(make_stack(), listen="192.0.2.1:0", insecure=True)
    assert code == 1
    assert "192.0.2.1:0 cannot be served on" in log


def test_plain_text_on_every_address_is_refused(make_stack: MakeStack) -> None:
    code, log = _failed_start(make_stack(), listen="0.0.0.0:0")
    assert code == 2
    assert "provenance.gateway.listen: 0.0.0.0:0 can be reached from other machines, in plain text" in log


def test_plain_text_on_every_address_with_the_flag(make_stack: MakeStack) -> None:
    program = make_stack().start_gateway(wait=False, listen="127.0.0.1:0")
    program.terminate()
    program.command += ["--listen", "0.0.0.0:0", "--insecure"]
    program.start()
    program.wait_ready()
    assert re.fullmatch(r"0\.0\.0\.0:\d+", program.address)
    with connected(program.address.replace("0.0.0.0", "127.0.0.1")) as (_, stub):
        assert _with_path(stub)
    assert program.terminate() == 0


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates with their keys: `server`, `client`, `stranger`; each is its own authority."""
    path = tmp_path_factory.mktemp("pem")
    for name in ("server", "client", "stranger"):
        names = f"-subj /CN={name} -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        files = f"-keyout {path}/{name}.key -out {path}/{name}.crt"
        kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        command = f"openssl req {kind} {names} {files}".split()
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    return path


def _secure_call(address: str, pem: Path, authority: str, client: str | None = None) -> bool:
    key, chain = [(pem / f"{client}.{end}").read_bytes() if client else None for end in ("key", "crt")]
    credentials = grpc.ssl_channel_credentials((pem / f"{authority}.crt").read_bytes(), key, chain)
    with grpc.secure_channel(address, credentials) as channel:
        return _with_path(ProvenanceStorageStub(channel))


def test_tls(make_stack: MakeStack, pem: Path) -> None:
    program = make_stack().start_gateway(tls_certificate=str(pem / "server.crt"), tls_key=str(pem / "server.key"))
    assert _secure_call(program.address, pem, "server")
    assert not _secure_call(program.address, pem, "stranger")
    with grpc.insecure_channel(program.address) as channel:
        assert not _with_path(ProvenanceStorageStub(channel))
    assert program.terminate() == 0


def test_tls_with_client_certificates(make_stack: MakeStack, pem: Path) -> None:
    program = make_stack().start_gateway(
        tls_certificate=str(pem / "server.crt"),
        tls_key=str(pem / "server.key"),
        tls_client_ca=str(pem / "client.crt"),
    )
    assert _secure_call(program.address, pem, "server", client="client")
    assert not _secure_call(program.address, pem, "server", client="stranger")
    assert not _secure_call(program.address, pem, "server")


def test_other_range_counts_than_those_of_the_storage(make_stack: MakeStack) -> None:
    code, log = _failed_start(make_stack(rabbitmq={"ranges": {"revision": 32}}))
    assert code == 1
    assert "revision: 16 recorded, 32 configured" in log


@pytest.mark.parametrize(
    ("count", "expected"),
    [(8, r"queue content_add\.unknown\.8, but .*ranges\.content is 8"), (32, r"no queue content_add\.unknown\.1f.*")],
)
def test_other_range_counts_than_those_of_the_queues(make_stack: MakeStack, count: int, expected: str) -> None:
    # The database cannot be asked: nobody listens there.
    code, log = _failed_start(make_stack("host=127.0.0.1 port=1", rabbitmq={"ranges": {"content": count}}))
    assert code == 1
    assert re.search(expected, log)
    assert "provenance.rabbitmq.ranges.content" in log


def test_an_empty_database(make_stack: MakeStack, postgres_dsn: str) -> None:
    code, log = _failed_start(make_stack(postgres_dsn))
    assert code == 1
    assert "provgate-workers setup" in log


def test_without_its_database_a_gateway_writes(make_stack: MakeStack, scripted_workers: ScriptedWorkers) -> None:
    program = make_stack("host=127.0.0.1 port=1").start_gateway()
    with grpc.insecure_channel(program.address) as channel:
        eventually(lambda: health(channel, "provgate.broker") == "SERVING", "the broker is reached")
        assert health(channel, "provgate.storage") == health(channel) == health(channel, "") == "NOT_SERVING"
        stub = ProvenanceStorageStub(channel)
        assert write(stub.ContentAdd, [contents(3)]).counts == (3, 3, 3)
        request = pb2.ContentFindFirstRequest(id=b"\x01" * 20)
        outcome = outcome_of_unary(lambda: stub.ContentFindFirst(request, timeout=20))
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert "RetryInfo" in outcome.details
    assert "127.0.0.1" not in outcome.message
    assert program.terminate() == 0


def test_a_database_that_comes_later_is_read(make_stack: MakeStack, module_postgres_dsn: str) -> None:
    database = parse_dsn(module_postgres_dsn)
    with Link(database["host"], int(database["port"])) as link:
        link.mode = Mode.REFUSE
        program = make_stack(make_dsn(module_postgres_dsn, port=link.port)).start_gateway()
        with grpc.insecure_channel(program.address) as channel:
            eventually(lambda: health(channel, "provgate.broker") == "SERVING", "the broker is reached")
            assert health(channel, "provgate.storage") == "NOT_SERVING"
            link.mode = Mode.PASS
            eventually(lambda: health(channel, "provgate.storage") == "SERVING", "the database is reached")
            found = ProvenanceStorageStub(channel).ContentFindFirst(pb2.ContentFindFirstRequest(id=b"\x01" * 20))
            assert not found.HasField("result")
        assert program.terminate() == 0


def test_without_broker_and_database_a_gateway_waits_and_can_be_stopped(make_stack: MakeStack) -> None:
    stack = make_stack("host=127.0.0.1 port=1", "amqp://u:hunter2@127.0.0.1:1/")
    program = stack.start_gateway(wait=False)
    eventually(lambda: "waiting for the storage or the broker" in program.log_path.read_text(), "it waits")
    assert program.alive
    assert not program.ready_file.exists()
    assert program.terminate(timeout_s=10) == 0
    log = program.log_path.read_text()
    assert "hunter2" not in log
    assert "Traceback" not in log


class HealthWatcher:
    """What the health service says over time."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.statuses: list[str] = []
        self._call: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for response in self._call:
                self.statuses.append(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
        except grpc.RpcError:
            return

    def end(self) -> None:
        self._call.cancel()
        self._thread.join(5)


def _signal(program: ChildProgram, number: signal.Signals = signal.SIGTERM) -> None:
    subprocess.run(["kill", f"-{number.name.removeprefix('SIG')}", str(program.pid)], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_finish_before_the_end(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers, number: signal.Signals
) -> None:
    program = make_stack().start_gateway()
    with connected(program.address) as (channel, stub):
        watcher = HealthWatcher(channel)
        eventually(lambda: watcher.statuses == ["SERVING"], "the watch has begun")
        scripted_workers.script = silent
        call = OpenWrite(stub)
        call.send(contents(3))
        call.wait_for(lambda progress: progress.published_count == 3)
        _signal(program, number)
        eventually(lambda: watcher.statuses == ["SERVING", "NOT_SERVING"], "health says so")
        watcher.end()
        assert program.alive
        # No new call is taken, but the one in flight may even send more.
        eventually(lambda: not _with_path(stub), "new calls are refused")
        scripted_workers.script = in_full
        call.send(contents(4, start=3))
        for request in scripted_workers.wait_for(3)[:3]:
            scripted_workers.answer(request, *in_full(request))
        assert call.end().counts == (7, 7, 7)
    code, log = _end_of(program, timeout_s=5)
    assert code == 0
    assert "Traceback" not in log


def test_somebody_who_watches_health_does_not_hold_up_the_end(make_stack: MakeStack) -> None:
    program = make_stack().start_gateway()
    with connected(program.address) as (channel, _):
        watcher = HealthWatcher(channel)
        eventually(lambda: bool(watcher.statuses), "the watch has begun")
        started_at = time.monotonic()
        assert program.terminate() == 0
        assert time.monotonic() - started_at < 5


def test_at_the_end_of_the_grace_period_calls_are_told_to_try_again(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    program = make_stack().start_gateway(grace=0.8)
    with connected(program.address) as (_, stub):
        call = OpenWrite(stub)
        call.send(contents(3))
        call.wait_for(lambda progress: progress.published_count == 3)
        _signal(program)
        outcome = call.end()
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert outcome.counts == (3, 3, 0)
        assert "RetryInfo" in outcome.details
    assert _end_of(program, timeout_s=5)[0] == 0


def test_a_gateway_may_be_stopped_while_it_connects(make_stack: MakeStack) -> None:
    stack = make_stack()
    for delay_s in (0.0, 0.005, 0.01, 0.02):
        program = stack.start_gateway()
        time.sleep(delay_s)
        assert program.terminate(timeout_s=5) == 0
