"""The users of docs/operations.md, made by the lines that stand there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg2
from psycopg2.extensions import parse_dsn
from pymongo import MongoClient

from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.support.fix_servers import CLONE

SETUP: Final = "provgate_setup"
WORKERS: Final = "provgate_workers"
GATEWAY: Final = "provgate_gateway"
OPERATOR: Final = "provgate_operator"

PASSWORD: Final = "of-a-test"
Permissions = tuple[str, str, str]
"""The regular expressions of what a user of the broker may configure, write and read."""

_DATABASE: Final = "provenance"
_VHOST: Final = "provgate"


def block(marker: str) -> str:
    """Returns the code block of docs/operations.md behind an HTML comment."""
    text = (CLONE / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    if found is None:
        raise LookupError(f"docs/operations.md has no block {marker}")
    return found[1]


def permissions() -> dict[str, Permissions]:
    """Returns the permissions of each user of the broker."""
    granted: dict[str, Permissions] = {}
    for line in block("rabbitmq-permissions").splitlines():
        command, *arguments = shlex.split(line.removeprefix("$ "))
        if arguments[0] == "set_permissions":
            assert (command, arguments[1], arguments[2]) == ("rabbitmqctl", "-p", _VHOST)
            user, configure, write, read = arguments[3:]
            granted[user] = configure, write, read
    return granted


@contextmanager
def broker_users(node: RabbitMqNode, vhost: str) -> Iterator[dict[str, str]]:
    """Makes the users of the broker; gives the URL of each."""
    granted = permissions()
    for user, rights in granted.items():
        node.ctl("add_user", user, PASSWORD)
        node.ctl("set_permissions", "-p", vhost, user, *rights)
    yield {user: node.url_of(user, PASSWORD, vhost) for user in granted}
    for user in granted:
        node.ctl("delete_user", user)


@contextmanager
def database_users(cluster: PostgreSqlCluster, database: str) -> Iterator[dict[str, dict[str, Any]]]:
    """Makes the users of a database, which has no tables yet; gives the storage configuration of each."""
    users = (SETUP, WORKERS, GATEWAY)
    dsn = cluster.dsn(database)
    execute(dsn, block("postgresql-roles").replace(f"DATABASE {_DATABASE}", f"DATABASE {database}"))
    for user in users:
        execute(dsn, f"ALTER ROLE {user} PASSWORD '{PASSWORD}'")
    yield {user: {"cls": "postgresql", "db": parse_dsn(dsn) | {"user": user, "password": PASSWORD}} for user in users}
    execute(dsn, f"DROP OWNED BY {', '.join(users)}; DROP ROLE {', '.join(users)}")


def grant_on_tables(cluster: PostgreSqlCluster, database: str) -> None:
    """Grants what can be granted once set-up has made the tables."""
    execute(cluster.dsn(database), block("postgresql-grants"))


def make_mongodb_users(server: MongoDbServer, database: str) -> dict[str, str]:
    """Makes the users of a MongoDB database, has the server take nobody else, and returns the URL of each."""
    text = block("mongodb-users").replace(f'"db": "{_DATABASE}"', f'"db": "{database}"')
    commands = [json.loads(argument) for argument in re.findall(r"db\.adminCommand\((.*?)\)$", text, re.DOTALL | re.M)]
    with MongoClient[dict[str, Any]](server.url()) as client:
        for command in commands:
            client.admin.command(command | ({"pwd": PASSWORD} if "pwd" in command else {}))
    server.require_users()
    users = [command["createUser"] for command in commands if "createUser" in command]
    return {user: server.url_of(user, PASSWORD, database) for user in users}


def execute(dsn: str, statements: str) -> None:
    """Runs statements in one transaction."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statements)
