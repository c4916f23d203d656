"""The private servers of the launcher."""

from __future__ import annotations

import pika
import psycopg2
import pytest

from provgate_stack.postgresql import PostgreSqlCluster, ShutdownMode
from provgate_stack.rabbitmq import RabbitMqNode


def _entities(dsn: str) -> int:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            (count,) = cursor.fetchone() or (None,)
            return int(count)
    finally:
        connection.close()


def test_fresh_database_is_empty(postgres_dsn: str) -> None:
    assert _entities(postgres_dsn) == 0


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


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_database_outlives_a_restart(
    postgres_cluster: PostgreSqlCluster, postgres_dsn: str, mode: ShutdownMode
) -> None:
    postgres_cluster.restart(mode)
    assert _entities(postgres_dsn) == 0


def test_database_outlives_a_kill(postgres_cluster: PostgreSqlCluster, postgres_dsn: str) -> None:
    postgres_cluster.kill()
    assert not postgres_cluster.alive
    postgres_cluster.start()
    assert _entities(postgres_dsn) == 0
