"""Programs that are started before what they need: they wait, say what for, and go on by themselves."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
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
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import contents, health, outcome_of_unary, write
from tests.support.link import Link, Mode
from tests.support.polling import eventually
from tests.support.programs import run_workers

SERVICES = ("", "provgate.v1.ProvenanceStorage", "provgate.broker", "provgate.storage")


def problems(metrics_address: str) -> dict[str, str]:
    """What /readyz says does not hold, by the conditions' names; nothing while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{metrics_address}/readyz", timeout=5):
            return {}
    except urllib.error.HTTPError as error:
        conditions = json.loads(error.read())["conditions"]
        return {each["name"]: each["problem"] for each in conditions if each.get("problem")}
    except OSError:
        return {}


def wait_for_problem(program: ChildProgram, metrics_address: str, name: str, text: str) -> None:
    eventually(
        lambda: not program.alive or text in problems(metrics_address).get(name, ""), f"{name}: {text}", timeout_s=30
    )
    assert program.alive, f"ended with {program.terminate()}: {program.log_path.read_text()}"


def assert_writes(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        eventually(lambda: health(channel) == "SERVING", "the gateway serves", timeout_s=60)
        assert write(ProvenanceStorageStub(channel).ContentAdd, [contents(3)]).counts == (3, 3, 3)


def told(program: ChildProgram, level: str = "WARNING") -> list[str]:
    return [line for line in program.log_path.read_text().splitlines() if level in line]


def test_a_gateway_before_set_up(small_stack: Stack) -> None:
    gateway = small_stack.start_gateway(wait=False, listen=small_stack.address)
    wait_for_problem(gateway, gateway.metrics_address, "storage", "no schema: run `provgate-workers setup`")
    wait_for_problem(gateway, gateway.metrics_address, "broker", "no queue content_add.unknown.3: run")
    wait_for_problem(gateway, gateway.metrics_address, "ranges", "waits")
    with grpc.insecure_channel(small_stack.address) as channel:
        assert {health(channel, service) for service in SERVICES} == {"NOT_SERVING"}
        stub = ProvenanceStorageStub(channel)
        read = outcome_of_unary(lambda: stub.ContentFindFirst(pb2.ContentFindFirstRequest(id=b"\1" * 20), timeout=20))
        assert (read.code, read.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert "RetryInfo" in read.details
        assert write(stub.ContentAdd, [contents(3)]).code is grpc.StatusCode.UNAVAILABLE
    assert not gateway.ready_file.exists()
    assert len(told(gateway)) == 1
    small_stack.start_workers()
    gateway.wait_ready()
    assert_writes(small_stack.address)
    assert gateway.terminate() == 0


@pytest.fixture
def links(amqp_url: str, postgres_dsn: str, stack_directory: StackDirectory) -> Iterator[tuple[Stack, Link, Link]]:
    """A stack of which nothing runs, and the links to its broker and its database, which refuse."""
    broker, database = grpc_target(amqp_url), parse_dsn(postgres_dsn)
    with Link(*broker) as to_broker, Link(database["host"], int(database["port"])) as to_database:
        to_broker.mode = to_database.mode = Mode.REFUSE
        url = amqp_url.replace(f":{broker[1]}/", f":{to_broker.port}/")
        storage = postgresql_storage(make_dsn(postgres_dsn, port=to_database.port))
        stack = Stack(url, storage, stack_directory, {"rabbitmq": {"ranges": dict(FEW_RANGES)}}, name="start-order")
        yield stack, to_broker, to_database
        stack.kill()


def grpc_target(amqp_url: str) -> tuple[str, int]:
    host, _, port = amqp_url.rpartition("@")[2].partition("/")[0].rpartition(":")
    return host, int(port)


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
    assert_writes(stack.address)
    assert len(told(gateway)) <= 8
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


def test_set_up_while_a_gateway_waits_for_it_alone(small_stack: Stack) -> None:
    gateway = small_stack.start_gateway(wait=False, listen=small_stack.address)
    wait_for_problem(gateway, gateway.metrics_address, "storage", "no schema")
    assert run_workers(small_stack.config, "setup").returncode == 0
    gateway.wait_ready()
    assert gateway.terminate() == 0
