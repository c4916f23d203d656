"""`provgate doctor` with real servers, and the readiness of the gateway that must agree."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import psycopg2
import pytest
import trustme

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.integration.doctored import config_of, diagnosis, run_doctor
from tests.support.broker import alarm
from tests.support.fix_stack import FEW_RANGES
from tests.support.polling import eventually
from tests.support.watch_port import Probe, probe

QUEUE = "content_add.unknown.2"


@pytest.fixture(scope="module")
def broker_url(rabbitmq_node: RabbitMqNode) -> Iterator[str]:
    """A virtual host of the private node."""
    name = f"doctor-{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    yield rabbitmq_node.url(name)
    rabbitmq_node.delete_vhost(name)


@pytest.fixture(scope="module")
def database_dsn(postgres_cluster: PostgreSqlCluster) -> Iterator[str]:
    """A database of the private cluster."""
    name = f"doctor_{secrets.token_hex(4)}"
    yield postgres_cluster.create_database(name)
    postgres_cluster.drop_database(name)


@pytest.fixture(scope="module")
def healthy(broker_url: str, database_dsn: str, stack_directory: StackDirectory) -> Iterator[Stack]:
    """A stack that runs; a test leaves it as healthy as it was."""
    overrides: dict[str, dict[str, Any]] = {"rabbitmq": {"ranges": FEW_RANGES}, "gateway": {"inspection_interval": 1}}
    name = f"doctor-{secrets.token_hex(4)}"
    stack = Stack(broker_url, postgresql_storage(database_dsn), stack_directory, overrides, name)
    stack.start()
    yield stack
    stack.kill()


@pytest.fixture
def amqp_channel(broker_url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    yield connection.channel()
    connection.close()


@pytest.fixture
def without_workers(healthy: Stack) -> Iterator[Stack]:
    """The stack while its worker program is stopped; what is missing then is made at its next start."""
    (workers,) = healthy.workers
    assert workers.terminate() == 0
    yield healthy
    workers.start()
    workers.wait_ready()
    eventually(lambda: is_ready(healthy), "the gateway is ready again", 30)


def wait_until_shown(stack: Stack, condition: str, part: str, program: GatewayProgram | None = None) -> None:
    """Waits until a gateway, by default the first, is not ready and names the problem of a condition."""
    address = (program or stack.gateways[0]).metrics_address
    told_of: list[Probe] = []

    def is_shown() -> bool:
        told_of.append(probe(address, "/readyz"))
        return part in str(told_of[-1].problems.get(condition)) and not told_of[-1].ok

    eventually(is_shown, f"/readyz says {part!r} of {condition}", 30)


def is_ready(stack: Stack) -> bool:
    return probe(stack.gateways[0].metrics_address, "/readyz").ok


def certificate(path: Path, valid_for: timedelta) -> dict[str, Any]:
    """Makes a certificate that is valid for some time from now, and returns the files of it and its key."""
    now = datetime.now(UTC)
    issued = trustme.CA().issue_cert("localhost", not_before=now - timedelta(days=400), not_after=now + valid_for)
    issued.cert_chain_pems[0].write_to_path(path / "cert.pem")
    issued.private_key_pem.write_to_path(path / "key.pem")
    return {"tls_certificate": str(path / "cert.pem"), "tls_key": str(path / "key.pem")}


def test_a_healthy_stack(healthy: Stack) -> None:
    eventually(lambda: is_ready(healthy), "the gateway is ready", 30)
    found = diagnosis(healthy)
    assert found.amiss == set()
    assert found.exit_code == 0
    checks = {each["check"] for each in found.findings if each["severity"] == "ok"}
    assert checks == {
        *("configuration", "versions", "broker", "permissions", "alarms", "topology", "consumers", "range counts"),
        *("dead letters", "database", "schema", "durability", "clock", "gateway"),
    }


def test_stopped_workers_as_text_and_json(without_workers: Stack) -> None:
    done = run_doctor(without_workers)
    assert done.returncode == 2
    assert "consumers: 19 of 19 work queues have no consumer" in done.stdout
    assert "why: packages of these ranges wait" in done.stdout
    assert "do:  provgate-workers run" in done.stdout
    found = diagnosis(without_workers)
    assert found.amiss == {"consumers"}
    assert found.exit_code == 2
    wait_until_shown(without_workers, "consumers", "19 of 19 work queues have no consumer")


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm(healthy: Stack, rabbitmq_node: RabbitMqNode, resource: str) -> None:
    with alarm(rabbitmq_node, resource):
        found = diagnosis(healthy)
    assert found.amiss == {"alarms"}
    assert found.exit_code == 2


def test_a_missing_queue(without_workers: Stack, amqp_channel: Any) -> None:
    amqp_channel.queue_delete(QUEUE)
    found = diagnosis(without_workers)
    assert found.amiss == {"topology", "consumers"}
    (what,) = found.of("topology")
    assert what == f"1 missing queue: {QUEUE}"
    wait_until_shown(without_workers, "topology", f"queue {QUEUE} is missing")


def test_a_queue_with_other_arguments(without_workers: Stack, amqp_channel: Any) -> None:
    amqp_channel.queue_delete(QUEUE)
    amqp_channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    try:
        found = diagnosis(without_workers)
    finally:
        amqp_channel.queue_delete(QUEUE)
    assert found.amiss == {"topology", "consumers"}
    (what,) = found.of("topology")
    assert QUEUE in what
    assert "inequivalent arg" in what


def test_a_missing_exchange(without_workers: Stack, amqp_channel: Any) -> None:
    amqp_channel.exchange_delete("origin")
    found = diagnosis(without_workers)
    assert found.of("topology") == ["exchange origin: missing"]


def test_dead_letters(healthy: Stack, amqp_channel: Any) -> None:
    amqp_channel.confirm_delivery()
    amqp_channel.basic_publish("", DEAD_LETTER_QUEUE, b"a letter")
    found = diagnosis(healthy)
    amqp_channel.queue_purge(DEAD_LETTER_QUEUE)
    assert found.amiss == {"dead letters"}
    assert found.exit_code == 1
    assert found.of("dead letters", "warning") == ["1 package could not be stored"]


def test_range_counts_that_differ(healthy: Stack, tmp_path: Path) -> None:
    config = config_of(healthy, tmp_path, rabbitmq={"ranges": {**FEW_RANGES, "content": 8, "origin": 1}})
    found = diagnosis(healthy, config)
    assert found.exit_code == 2
    of_broker, of_database = found.of("range counts")
    assert of_broker == "exchange content: the broker has queues of 4 ranges, 8 configured"
    assert of_database == "content: 4 recorded, 8 configured"


def test_a_user_who_may_not_publish_to_an_exchange(
    healthy: Stack, rabbitmq_node: RabbitMqNode, broker_url: str, tmp_path: Path
) -> None:
    vhost = urlsplit(broker_url).path[1:]
    rabbitmq_node.ctl("add_user", "reader", "hunter2")
    rabbitmq_node.ctl("set_permissions", "-p", vhost, "reader", "^$", "^(content|origin|location|revision)$", "^$")
    url = f"amqp://reader:hunter2@127.0.0.1:{rabbitmq_node.port}/{vhost}"
    found = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"url": url}))
    rabbitmq_node.ctl("delete_user", "reader")
    assert found.amiss == {"permissions"}
    assert found.of("permissions") == [
        "the user may not write to directory",
        "the user may not have a queue of its own for replies",
    ]
    assert "hunter2" not in found.text


NO_BROKER = {"rabbitmq": {"url": "amqp://guest:hunter2@127.0.0.1:1/"}}
NO_DATABASE = {"rabbitmq": {"storage_config": postgresql_storage("postgresql://somebody:hunter2@127.0.0.1:1/p")}}
NO_GATEWAY = {"storage": {"url": "127.0.0.1:1"}}
CLIENT_MACHINE = {"rabbitmq": None, "gateway": None}
OTHER_DEPLOYMENT = {"rabbitmq": {"topology": "existing", "storage_config": {}}}


@pytest.mark.parametrize(
    ("sections", "amiss", "ok", "skipped"),
    [
        (NO_BROKER, {"broker"}, {"schema", "gateway"}, {"topology", "permissions"}),
        (NO_DATABASE, {"database"}, {"topology", "gateway"}, {"schema", "durability"}),
        (NO_GATEWAY, {"gateway"}, {"topology", "schema"}, set()),
        (CLIENT_MACHINE, set(), {"gateway"}, {"configuration", "broker", "database"}),
        (OTHER_DEPLOYMENT, set(), {"topology", "gateway"}, {"permissions", "alarms", "dead letters"}),
    ],
    ids=["no broker", "no database", "no gateway", "a client's machine", "another deployment"],
)
def test_one_missing_part_leaves_the_other_checks(
    healthy: Stack, tmp_path: Path, sections: dict[str, Any], amiss: set[str], ok: set[str], skipped: set[str]
) -> None:
    found = diagnosis(healthy, config_of(healthy, tmp_path, **sections))
    assert found.amiss == amiss
    assert found.exit_code == (2 if amiss else 0)
    assert all(found.of(check, "ok") for check in ok)
    assert all(found.of(check, "skipped") for check in skipped)
    assert "hunter2" not in found.text


def test_an_empty_database(healthy: Stack, tmp_path: Path, postgres_cluster: PostgreSqlCluster) -> None:
    name = f"empty_{secrets.token_hex(4)}"
    storage_config = postgresql_storage(postgres_cluster.create_database(name))
    found = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"storage_config": storage_config}))
    postgres_cluster.drop_database(name)
    assert found.amiss == {"schema"}


def test_a_database_that_may_lose_what_it_acked(healthy: Stack, postgres_cluster: PostgreSqlCluster) -> None:
    connection = psycopg2.connect(postgres_cluster.dsn())
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET fsync = off")
            cursor.execute("SELECT pg_reload_conf()")
            found = diagnosis(healthy)
            cursor.execute("ALTER SYSTEM RESET fsync")
            cursor.execute("SELECT pg_reload_conf()")
    finally:
        connection.close()
    assert found.of("durability") == ["fsync is off"]
    assert found.amiss == {"durability"}


@pytest.mark.parametrize(
    ("valid_for", "severity", "exit_code"),
    [(timedelta(hours=-1), "broken", 2), (timedelta(days=13), "warning", 1), (timedelta(days=20), "ok", 0)],
)
def test_a_certificate_that_expires(
    healthy: Stack, tmp_path: Path, valid_for: timedelta, severity: str, exit_code: int
) -> None:
    found = diagnosis(healthy, config_of(healthy, tmp_path, gateway=certificate(tmp_path, valid_for)))
    assert len(found.of("certificates", severity)) == 1
    assert found.exit_code == exit_code


def test_a_gateway_that_serves_an_expired_certificate_is_not_ready(healthy: Stack, tmp_path: Path) -> None:
    program = healthy.start_gateway(**certificate(tmp_path, timedelta(minutes=-1)))
    wait_until_shown(healthy, "certificate", "has expired at", program)
    # A new one in its place is taken without a restart.
    certificate(tmp_path, timedelta(days=30))
    eventually(lambda: probe(program.metrics_address, "/readyz").ok, "it is ready", 30)
    assert program.terminate() == 0


def test_a_configuration_that_cannot_be_read(healthy: Stack, tmp_path: Path) -> None:
    config = config_of(healthy, tmp_path, rabbitmq={"prefetch_count": "many"}, gateway={"storage_config": {"cls": "x"}})
    found = diagnosis(healthy, config)
    assert found.exit_code == 2
    section, storage = found.of("configuration")
    assert section.startswith("provenance.rabbitmq.prefetch_count: ")
    assert storage.startswith("provenance.gateway.storage_config.cls: no storage is called 'x'")


def test_a_file_that_is_not_yaml(healthy: Stack, tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("provenance: {")
    found = diagnosis(healthy, config)
    assert found.exit_code == 2
    assert found.amiss == {"configuration"}


@pytest.mark.parametrize(
    ("replaced", "replacement", "code"),
    [("username", "nobody", 403), ("password", "hunter2", 403), ("path", "/nowhere", 530)],
)
def test_a_broker_that_refuses_is_reported_with_its_answer(
    healthy: Stack, tmp_path: Path, broker_url: str, replaced: str, replacement: str, code: int
) -> None:
    url = urlsplit(broker_url)
    user, password = (replacement if part == replaced else getattr(url, part) for part in ("username", "password"))
    path = replacement if replaced == "path" else url.path
    config = config_of(healthy, tmp_path, rabbitmq={"url": f"amqp://{user}:{password}@127.0.0.1:{url.port}{path}"})
    found = diagnosis(healthy, config)
    assert found.exit_code == 2
    assert found.of("topology", "skipped") == ["the broker refused the connection"], found.of("broker")
    (what,) = found.of("broker")
    assert f":{url.port}{path} answered {code}: " in what
    assert "hunter2" not in found.text
