"""`provgate doctor` before real servers, and what is wrong with them."""

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

from provgate_broker.declaration import DEAD_LETTER_QUEUE
from provgate_stack.directory import StackDirectory
from provgate_stack.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.broker_alarms import alarm
from tests.faults.conftest import FEW_RANGES
from tests.integration.doctored import config_of, diagnosis, run_doctor

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
    overrides = {"rabbitmq": {"ranges": FEW_RANGES}}
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


def certificate(path: Path, valid_for: timedelta) -> dict[str, str]:
    """Makes a certificate that is valid for so long from now, and returns the files of it and its key."""
    now = datetime.now(UTC)
    issued = trustme.CA().issue_cert("localhost", not_before=now - timedelta(days=400), not_after=now + valid_for)
    issued.cert_chain_pems[0].write_to_path(path / "cert.pem")
    issued.private_key_pem.write_to_path(path / "key.pem")
    return {"tls_certificate": str(path / "cert.pem"), "tls_key": str(path / "key.pem")}


def test_a_healthy_stack(healthy: Stack) -> None:
    told = diagnosis(healthy)
    assert told.amiss == set()
    assert told.exit_code == 0
    checks = {found["check"] for found in told.findings if found["severity"] == "ok"}
    assert checks == {
        *("configuration", "versions", "broker", "permissions", "alarms", "topology", "consumers", "range counts"),
        *("dead letters", "database", "schema", "durability", "clock", "gateway"),
    }


def test_for_people_it_says_what_why_and_what_to_do(without_workers: Stack) -> None:
    done = run_doctor(without_workers)
    assert done.returncode == 2
    assert "consumers: 19 of 19 work queues have no consumer" in done.stdout
    assert "why: packages of these ranges wait" in done.stdout
    assert "do:  provgate-workers run" in done.stdout


def test_a_stopped_worker_program(without_workers: Stack) -> None:
    told = diagnosis(without_workers)
    assert told.amiss == {"consumers"}
    assert told.exit_code == 2


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm(healthy: Stack, rabbitmq_node: RabbitMqNode, resource: str) -> None:
    with alarm(rabbitmq_node, resource):
        told = diagnosis(healthy)
    assert told.amiss == {"alarms"}
    assert told.exit_code == 2


def test_a_missing_queue(without_workers: Stack, amqp_channel: Any) -> None:
    amqp_channel.queue_delete(QUEUE)
    told = diagnosis(without_workers)
    assert told.amiss == {"topology", "consumers"}
    (what,) = told.of("topology")
    assert what == f"1 queues are missing: {QUEUE}"


def test_a_queue_with_other_arguments(without_workers: Stack, amqp_channel: Any) -> None:
    amqp_channel.queue_delete(QUEUE)
    amqp_channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    try:
        told = diagnosis(without_workers)
    finally:
        amqp_channel.queue_delete(QUEUE)
    assert told.amiss == {"topology", "consumers"}
    (what,) = told.of("topology")
    assert QUEUE in what
    assert "inequivalent arg" in what


def test_a_missing_exchange(without_workers: Stack, amqp_channel: Any) -> None:
    amqp_channel.exchange_delete("origin")
    told = diagnosis(without_workers)
    assert told.of("topology") == ["exchange origin: missing"]


def test_dead_letters(healthy: Stack, amqp_channel: Any) -> None:
    amqp_channel.confirm_delivery()
    amqp_channel.basic_publish("", DEAD_LETTER_QUEUE, b"a letter")
    told = diagnosis(healthy)
    amqp_channel.queue_purge(DEAD_LETTER_QUEUE)
    assert told.amiss == {"dead letters"}
    assert told.exit_code == 1
    assert told.of("dead letters", "warning") == ["1 packages could not be stored"]


def test_range_counts_that_differ(healthy: Stack, tmp_path: Path) -> None:
    config = config_of(healthy, tmp_path, rabbitmq={"ranges": {**FEW_RANGES, "content": 8, "origin": 1}})
    told = diagnosis(healthy, config)
    assert told.exit_code == 2
    of_broker, of_database = told.of("range counts")
    assert of_broker == "exchange content: the broker has queues of 4 ranges, 8 configured"
    assert of_database == "content: 4 recorded, 8 configured"


def test_a_user_who_may_not_publish_to_an_exchange(
    healthy: Stack, rabbitmq_node: RabbitMqNode, broker_url: str, tmp_path: Path
) -> None:
    vhost = urlsplit(broker_url).path[1:]
    rabbitmq_node.ctl("add_user", "reader", "hunter2")
    rabbitmq_node.ctl("set_permissions", "-p", vhost, "reader", "^$", "^(content|origin|location|revision)$", "^$")
    url = f"amqp://reader:hunter2@127.0.0.1:{rabbitmq_node.port}/{vhost}"
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"url": url}))
    rabbitmq_node.ctl("delete_user", "reader")
    assert told.amiss == {"permissions"}
    assert told.of("permissions") == [
        "the user may not write to directory",
        "the user may not have a queue of its own for replies",
    ]
    assert "hunter2" not in told.text


def test_no_broker(healthy: Stack, tmp_path: Path) -> None:
    url = "amqp://guest:hunter2@127.0.0.1:1/"
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"url": url}))
    assert told.amiss == {"broker"}
    assert len(told.of("topology", "skipped")) == 1
    assert told.of("schema", "ok")
    assert told.exit_code == 2
    assert "hunter2" not in told.text


def test_a_broker_that_does_not_know_the_user(healthy: Stack, broker_url: str, tmp_path: Path) -> None:
    url = f"amqp://nobody:hunter2@{broker_url.partition('@')[2]}"
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"url": url}))
    (what,) = told.of("broker")
    assert "ACCESS_REFUSED" in what
    assert "hunter2" not in told.text


def test_no_database(healthy: Stack, tmp_path: Path) -> None:
    storage_config = postgresql_storage("postgresql://somebody:hunter2@127.0.0.1:1/provenance")
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"storage_config": storage_config}))
    assert told.amiss == {"database"}
    assert told.of("topology", "ok")
    assert told.exit_code == 2
    assert "hunter2" not in told.text


def test_an_empty_database(healthy: Stack, tmp_path: Path, postgres_cluster: PostgreSqlCluster) -> None:
    name = f"empty_{secrets.token_hex(4)}"
    storage_config = postgresql_storage(postgres_cluster.create_database(name))
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"storage_config": storage_config}))
    postgres_cluster.drop_database(name)
    assert told.amiss == {"schema"}


def test_a_database_that_may_lose_what_it_acked(healthy: Stack, postgres_cluster: PostgreSqlCluster) -> None:
    connection = psycopg2.connect(postgres_cluster.dsn())
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET fsync = off")
            cursor.execute("SELECT pg_reload_conf()")
            told = diagnosis(healthy)
            cursor.execute("ALTER SYSTEM RESET fsync")
            cursor.execute("SELECT pg_reload_conf()")
    finally:
        connection.close()
    assert told.of("durability") == ["fsync is off"]
    assert told.amiss == {"durability"}


@pytest.mark.parametrize(
    ("valid_for", "severity", "exit_code"),
    [(timedelta(hours=-1), "broken", 2), (timedelta(days=13), "warning", 1), (timedelta(days=20), "ok", 0)],
)
def test_a_certificate_that_expires(
    healthy: Stack, tmp_path: Path, valid_for: timedelta, severity: str, exit_code: int
) -> None:
    told = diagnosis(healthy, config_of(healthy, tmp_path, gateway=certificate(tmp_path, valid_for)))
    assert len(told.of("certificates", severity)) == 1
    assert told.exit_code == exit_code


def test_no_gateway(healthy: Stack, tmp_path: Path) -> None:
    told = diagnosis(healthy, config_of(healthy, tmp_path, storage={"url": "127.0.0.1:1"}))
    assert told.amiss == {"gateway"}
    assert told.exit_code == 2


def test_the_machine_of_a_client(healthy: Stack, tmp_path: Path) -> None:
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq=None, gateway=None))
    assert told.amiss == set()
    assert told.exit_code == 0
    assert len(told.of("configuration", "skipped")) == 2
    assert len(told.of("broker", "skipped")) == 1
    assert len(told.of("gateway", "ok")) == 3


def test_a_configuration_that_cannot_be_read(healthy: Stack, tmp_path: Path) -> None:
    config = config_of(healthy, tmp_path, rabbitmq={"prefetch_count": "many"}, gateway={"storage_config": {"cls": "x"}})
    told = diagnosis(healthy, config)
    assert told.exit_code == 2
    section, storage = told.of("configuration")
    assert section.startswith("provenance.rabbitmq.prefetch_count: ")
    assert storage.startswith("provenance.gateway.storage_config.cls: no storage is called 'x'")


def test_a_file_that_is_not_yaml(healthy: Stack, tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("provenance: {")
    told = diagnosis(healthy, config)
    assert told.exit_code == 2
    assert told.amiss == {"configuration"}


def test_the_broker_of_another_deployment_is_only_looked_at(healthy: Stack, tmp_path: Path) -> None:
    told = diagnosis(healthy, config_of(healthy, tmp_path, rabbitmq={"topology": "existing", "storage_config": {}}))
    assert told.amiss == set()
    for check in ("permissions", "alarms", "dead letters"):
        assert len(told.of(check, "skipped")) == 1
