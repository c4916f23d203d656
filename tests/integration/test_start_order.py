"""How programs start: what they refuse, what they wait for, and that they go on by themselves."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import grpc
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import ChildProgram
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack
from tests.support.fix_stack import FEW_RANGES, MakeStack
from tests.support.gateway_calls import Outcome, connected, contents, health, outcome_of_unary, wait_serving, write
from tests.support.link import Link, Mode
from tests.support.polling import eventually
from tests.support.programs import HealthWatcher, failed_start, run_workers, with_path
from tests.support.scripted_workers import ScriptedWorkers
from tests.support.watch_port import probe

SERVICES = ("", "provgate.v1.ProvenanceStorage", "provgate.broker", "provgate.storage")

# Nobody listens there.
NOWHERE = postgresql_storage("host=127.0.0.1 port=1")


def find_first(channel: grpc.Channel) -> Outcome:
    request = pb2.ContentFindFirstRequest(id=b"\1" * 20)
    return outcome_of_unary(lambda: ProvenanceStorageStub(channel).ContentFindFirst(request, timeout=20))


def check_unavailable(read: Outcome) -> None:
    assert (read.code, read.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert "RetryInfo" in read.details
    assert "127.0.0.1" not in read.message


def test_an_address_that_cannot_be_served_on_ends_a_gateway(make_stack: MakeStack) -> None:
    stack = make_stack()
    first = stack.start_gateway()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # Of the addresses of `localhost` another one may be free; the gateway's own socket lets others share it.
        for address in (f"127.0.0.1:{port}", f"localhost:{port}", first.address):
            code, log = failed_start(stack, listen=address)
            assert code == 1
            assert f"{address} cannot be served on: the port is taken" in log
    code, log = failed_start(stack, listen="192.0.2.1:0", insecure=True)
    assert code == 1
    assert "192.0.2.1:0 cannot be served on" in log
    with connected(first.address) as (_, stub):
        assert with_path(stub)


def test_plain_text_on_every_address_needs_a_flag(make_stack: MakeStack) -> None:
    code, log = failed_start(make_stack(), listen="0.0.0.0:0")
    assert code == 2
    assert "provenance.gateway.listen: 0.0.0.0:0 can be reached from other machines, in plain text" in log
    program = make_stack().start_gateway(wait=False, listen="127.0.0.1:0")
    program.terminate()
    program.command += ["--listen", "0.0.0.0:0", "--insecure"]
    program.start()
    program.wait_ready()
    assert re.fullmatch(r"0\.0\.0\.0:\d+", program.address)
    with connected(program.address.replace("0.0.0.0", "127.0.0.1")) as (_, stub):
        assert with_path(stub)
    assert program.terminate() == 0


def test_without_its_database_a_gateway_writes_and_it_reads_once_that_comes(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers, module_postgres_dsn: str
) -> None:
    database = parse_dsn(module_postgres_dsn)
    with Link(database["host"], int(database["port"])) as link:
        link.mode = Mode.REFUSE
        program = make_stack(postgresql_storage(make_dsn(module_postgres_dsn, port=link.port))).start_gateway()
        with grpc.insecure_channel(program.address) as channel:
            eventually(lambda: health(channel, "provgate.broker") == "SERVING", "the broker is reached")
            assert health(channel, "provgate.storage") == health(channel) == health(channel, "") == "NOT_SERVING"
            assert write(ProvenanceStorageStub(channel).ContentAdd, [contents(3)]).counts == (3, 3, 3)
            check_unavailable(find_first(channel))
            link.mode = Mode.PASS
            eventually(lambda: health(channel, "provgate.storage") == "SERVING", "the database is reached")
            assert not find_first(channel).responses[0].HasField("result")
        assert program.terminate() == 0


def test_without_broker_and_database_a_gateway_takes_no_calls_and_can_be_stopped(make_stack: MakeStack) -> None:
    program = make_stack(NOWHERE, "amqp://u:hunter2@127.0.0.1:1/").start_gateway(wait=False)
    eventually(lambda: "calls are taken once range counts" in program.log_path.read_text(), "it waits")
    assert program.alive
    assert not program.ready_file.exists()
    assert program.terminate(timeout_s=20) == 0


def test_a_gateway_may_be_stopped_while_it_connects_and_while_its_health_is_watched(make_stack: MakeStack) -> None:
    stack = make_stack()
    for delay_s in (0.0, 0.005, 0.01, 0.02):
        program = stack.start_gateway()
        time.sleep(delay_s)
        assert program.terminate(timeout_s=20) == 0
    program = stack.start_gateway()
    with connected(program.address) as (channel, _):
        watcher = HealthWatcher(channel)
        eventually(lambda: bool(watcher.statuses), "the watch has begun")
        # Less than the grace that calls have.
        assert program.terminate(timeout_s=20) == 0


def wait_for_problem(program: ChildProgram, metrics_address: str, name: str, text: str) -> None:
    def found() -> bool:
        try:
            return text in (probe(metrics_address, "/readyz").problems.get(name) or "")
        except OSError:
            # Nobody answers yet.
            return not program.alive

    eventually(found, f"{name}: {text}")
    assert program.alive, f"ended with {program.terminate()}: {program.log_path.read_text()}"


def check_writes(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        wait_serving(channel)
        assert write(ProvenanceStorageStub(channel).ContentAdd, [contents(3)]).counts == (3, 3, 3)


def warnings(program: ChildProgram) -> list[str]:
    return [line for line in program.log_path.read_text().splitlines() if "WARNING" in line]


def test_a_gateway_before_set_up(small_stack: Stack) -> None:
    gateway = small_stack.start_gateway(wait=False, listen=small_stack.address)
    wait_for_problem(gateway, gateway.metrics_address, "storage", "no schema: run `provgate-workers setup`")
    wait_for_problem(gateway, gateway.metrics_address, "broker", "no queue content_add.unknown.3: run")
    wait_for_problem(gateway, gateway.metrics_address, "ranges", "waits")
    with grpc.insecure_channel(small_stack.address) as channel:
        assert {health(channel, service) for service in SERVICES} == {"NOT_SERVING"}
        check_unavailable(find_first(channel))
        stub = ProvenanceStorageStub(channel)
        assert write(stub.ContentAdd, [contents(3)]).code is grpc.StatusCode.UNAVAILABLE
    assert not gateway.ready_file.exists()
    assert len(warnings(gateway)) == 1
    # Set-up alone is what it waits for.
    assert run_workers(small_stack.config, "setup").returncode == 0
    gateway.wait_ready()
    small_stack.start_workers()
    check_writes(small_stack.address)
    assert gateway.terminate() == 0


@pytest.fixture
def links(amqp_url: str, postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[tuple[Stack, Link, Link]]:
    """A stack of which nothing runs, and the links to its broker and its database, which refuse."""
    host, _, port = amqp_url.rpartition("@")[2].partition("/")[0].rpartition(":")
    database = parse_dsn(postgres_dsn)
    with Link(host, int(port)) as to_broker, Link(database["host"], int(database["port"])) as to_database:
        to_broker.mode = to_database.mode = Mode.REFUSE
        url = amqp_url.replace(f":{port}/", f":{to_broker.port}/")
        storage = postgresql_storage(make_dsn(postgres_dsn, port=to_database.port))
        stack = Stack(url, storage, stack_directory, {"rabbitmq": {"ranges": dict(FEW_RANGES)}}, name="start-order")
        yield stack, to_broker, to_database
        stack.kill()


@pytest.mark.parametrize("first", ["broker", "database"])
def test_gateway_and_workers_before_broker_and_database(links: tuple[Stack, Link, Link], first: str) -> None:
    stack, to_broker, to_database = links
    gateway = stack.start_gateway(wait=False, listen=stack.address)
    workers = stack.start_workers(wait=False)
    wait_for_problem(gateway, gateway.metrics_address, "storage", "PostgreSQL: ")
    wait_for_problem(gateway, gateway.metrics_address, "broker", "no connection to ")
    wait_for_problem(workers, workers.metrics_address, "preparation", "the database cannot be used yet")
    one, other = (to_broker, to_database) if first == "broker" else (to_database, to_broker)
    one.mode = Mode.PASS
    wait_for_problem(gateway, gateway.metrics_address, "broker" if first == "broker" else "storage", "run `provgate-w")
    other.mode = Mode.PASS
    workers.wait_ready()
    gateway.wait_ready()
    check_writes(stack.address)
    assert len(warnings(gateway)) <= 8
    assert [gateway.terminate(), workers.terminate()] == [0, 0]


def test_a_wrong_password_is_waited_for_and_told(
    amqp_url: str, postgres_dsn: str, stack_directory: StackDirectory
) -> None:
    user = amqp_url.partition("://")[2].partition(":")[0]
    url = f"amqp://{user}:hunter2@{amqp_url.rpartition('@')[2]}"
    storage = postgresql_storage(make_dsn(postgres_dsn, user="nobody_of_that_name"))
    with Stack(url, storage, stack_directory, name="start-password") as stack:
        gateway = stack.start_gateway(wait=False, listen=stack.address)
        workers = stack.start_workers(wait=False)
        wait_for_problem(gateway, gateway.metrics_address, "broker", "ACCESS_REFUSED")
        wait_for_problem(gateway, gateway.metrics_address, "storage", "nobody_of_that_name")
        wait_for_problem(workers, workers.metrics_address, "preparation", "nobody_of_that_name")
        assert [gateway.terminate(), workers.terminate()] == [0, 0]
        assert "hunter2" not in gateway.log_path.read_text()
