"""The private servers of the launcher."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import psycopg2
import pymongo
import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster, ShutdownMode
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.support.polling import eventually


@pytest.fixture(scope="module")
def mongodb_server(stack_directory: StackDirectory) -> Iterator[MongoDbServer]:
    """A server for this module alone: with the data of other tests it takes minutes to stop."""
    server = MongoDbServer(stack_directory, "mongodb-alone")
    server.start()
    yield server
    server.kill()


def _entities(dsn: str) -> int:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            (count,) = cursor.fetchone() or (None,)
            return int(count)
    finally:
        connection.close()


def test_fresh_vhost_lets_its_user_declare(amqp_url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    try:
        amqp_channel = connection.channel()
        amqp_channel.queue_declare("work", durable=True, arguments={"x-queue-type": "quorum"})
        assert amqp_channel.queue_declare("work", passive=True).method.message_count == 0
    finally:
        connection.close()


def test_deleted_vhost_is_gone(rabbitmq_node: RabbitMqNode) -> None:
    rabbitmq_node.add_vhost("short-lived")
    assert "short-lived" in rabbitmq_node.ctl("list_vhosts").split()
    rabbitmq_node.delete_vhost("short-lived")
    assert "short-lived" not in rabbitmq_node.ctl("list_vhosts").split()


def test_a_fresh_postgresql_database_survives_restarts_and_a_kill(
    postgres_cluster: PostgreSqlCluster, postgres_dsn: str
) -> None:
    assert _entities(postgres_dsn) == 0
    modes: tuple[ShutdownMode, ...] = ("fast", "immediate")
    for mode in modes:
        postgres_cluster.restart(mode)
        assert _entities(postgres_dsn) == 0
    postgres_cluster.kill()
    assert not postgres_cluster.alive
    postgres_cluster.start()
    assert _entities(postgres_dsn) == 0


def _numbers(url: str) -> list[int]:
    with _client(url) as client:
        return sorted(document["_id"] for document in client.get_default_database()["c"].find())


def _insert(url: str, number: int) -> None:
    with _client(url) as client:
        client.get_default_database()["c"].insert_one({"_id": number})


def _client(url: str, selection_ms: int = 10_000) -> MongoClient[dict[str, Any]]:
    return MongoClient(url, serverSelectionTimeoutMS=selection_ms, retryWrites=False)


def test_mongodb_databases_are_fresh_separate_and_dropped(mongodb_server: MongoDbServer) -> None:
    one, other = mongodb_server.create_database("one"), mongodb_server.create_database("other")
    assert _numbers(one) == []
    _insert(one, 1)
    assert _numbers(other) == []
    _insert(other, 2)
    mongodb_server.drop_database("one")
    assert _numbers(one) == []
    assert _numbers(other) == [2]
    mongodb_server.drop_database("other")


def test_mongodb_keeps_data_and_clients_over_a_restart(mongodb_server: MongoDbServer) -> None:
    url = mongodb_server.create_database("kept")
    _insert(url, 1)
    with _client(mongodb_server.url()) as client:
        client.admin.command("ping")
        mongodb_server.stop()
        assert not mongodb_server.alive
        mongodb_server.start()
        client.admin.command("ping")
    assert _numbers(url) == [1]
    mongodb_server.drop_database("kept")


def test_killed_mongodb_has_what_it_acked(mongodb_server: MongoDbServer) -> None:
    url = mongodb_server.create_database("killed")
    # What a server loses, it loses by chance.
    for round_number in range(3):
        acked = _kill_under_writers(mongodb_server, url, first=round_number * 10_000_000)
        mongodb_server.start()
        assert set(acked) <= set(_numbers(url))
    mongodb_server.drop_database("killed")


def _kill_under_writers(server: MongoDbServer, url: str, first: int) -> list[int]:
    """Returns the numbers whose insertion was acked."""
    acked: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(_write_until_killed, url, first + 1_000_000 * n, acked) for n in range(3)]
        eventually(lambda: len(acked) > 200, "there are acks")
        server.kill()
        assert not server.alive
        for writer in writers:
            writer.result()
    return acked


def _write_until_killed(url: str, first: int, acked: list[int]) -> None:
    with _client(url, selection_ms=1_000) as client, suppress(PyMongoError):
        for number in itertools.count(first):
            client.get_default_database()["c"].insert_one({"_id": number})
            acked.append(number)


def test_suspended_mongodb_continues(mongodb_server: MongoDbServer) -> None:
    with _client(mongodb_server.url()) as client:
        assert _answers(client)
        mongodb_server.suspend()
        try:
            # Its threads stop one after another.
            eventually(lambda: not _answers(client), "it does not answer")
        finally:
            mongodb_server.resume()
        eventually(lambda: _answers(client), "it answers again")


def _answers(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        with pymongo.timeout(1.0):
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def test_mongodb_may_keep_its_data_elsewhere(stack_directory: StackDirectory, tmp_path: Path) -> None:
    server = MongoDbServer(stack_directory, "elsewhere", data=tmp_path / "data")
    server.start()
    _insert(server.url("d"), 1)
    server.stop()
    assert list((tmp_path / "data").glob("*.wt"))
