"""How a gateway starts, refuses to start, and ends."""

from __future__ import annotations

import re
import socket
import time

import grpc
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.servers.postgresql import postgresql_storage
from tests.support.fix_stack import MakeStack
from tests.support.gateway_calls import connected, contents, health, outcome_of_unary, write
from tests.support.link import Link, Mode
from tests.support.polling import eventually
from tests.support.programs import HealthWatcher, failed_start, with_path
from tests.support.scripted_workers import ScriptedWorkers

# Nobody listens there.
NOWHERE = postgresql_storage("host=127.0.0.1 port=1")


# Of the addresses of `localhost` another one may be free.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_taken_port_is_not_shared(make_stack: MakeStack, host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"{host}:{taken.getsockname()[1]}"
        code, log = failed_start(make_stack(), listen=address)
    assert code == 1
    assert f"{address} cannot be served on: the port is taken" in log


def test_the_port_of_another_gateway_is_not_shared(make_stack: MakeStack) -> None:
    stack = make_stack()
    first = stack.start_gateway()
    code, log = failed_start(stack, listen=first.address)
    assert code == 1
    assert "the port is taken" in log
    with connected(first.address) as (_, stub):
        assert with_path(stub)


def test_an_address_that_is_not_of_this_machine(make_stack: MakeStack) -> None:
    code, log = failed_start(make_stack(), listen="192.0.2.1:0", insecure=True)
    assert code == 1
    assert "192.0.2.1:0 cannot be served on" in log


def test_plain_text_on_every_address_is_refused(make_stack: MakeStack) -> None:
    code, log = failed_start(make_stack(), listen="0.0.0.0:0")
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
        assert with_path(stub)
    assert program.terminate() == 0


def test_without_its_database_a_gateway_writes(make_stack: MakeStack, scripted_workers: ScriptedWorkers) -> None:
    program = make_stack(NOWHERE).start_gateway()
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
        program = make_stack(postgresql_storage(make_dsn(module_postgres_dsn, port=link.port))).start_gateway()
        with grpc.insecure_channel(program.address) as channel:
            eventually(lambda: health(channel, "provgate.broker") == "SERVING", "the broker is reached")
            assert health(channel, "provgate.storage") == "NOT_SERVING"
            link.mode = Mode.PASS
            eventually(lambda: health(channel, "provgate.storage") == "SERVING", "the database is reached")
            found = ProvenanceStorageStub(channel).ContentFindFirst(pb2.ContentFindFirstRequest(id=b"\x01" * 20))
            assert not found.HasField("result")
        assert program.terminate() == 0


def test_without_broker_and_database_a_gateway_waits_and_can_be_stopped(make_stack: MakeStack) -> None:
    stack = make_stack(NOWHERE, "amqp://u:hunter2@127.0.0.1:1/")
    program = stack.start_gateway(wait=False)
    eventually(
        lambda: "calls are taken once range counts" in program.log_path.read_text(),
        "it waits",
    )
    assert program.alive
    assert not program.ready_file.exists()
    assert program.terminate(timeout_s=10) == 0
    log = program.log_path.read_text()
    assert "hunter2" not in log
    assert "Traceback" not in log


def test_somebody_who_watches_health_does_not_hold_up_the_end(make_stack: MakeStack) -> None:
    program = make_stack().start_gateway()
    with connected(program.address) as (channel, _):
        watcher = HealthWatcher(channel)
        eventually(lambda: bool(watcher.statuses), "the watch has begun")
        started_at = time.monotonic()
        assert program.terminate() == 0
        assert time.monotonic() - started_at < 5


def test_a_gateway_may_be_stopped_while_it_connects(make_stack: MakeStack) -> None:
    stack = make_stack()
    for delay_s in (0.0, 0.005, 0.01, 0.02):
        program = stack.start_gateway()
        time.sleep(delay_s)
        assert program.terminate(timeout_s=5) == 0
