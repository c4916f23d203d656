"""The adapter, over a gateway and workers that run, keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2 import sql

from provgate_client.adapter import ProvenanceStorageGrpc
from provgate_stack.stack import Stack
from provgate_storage.interface import ProvenanceStorageInterface
from tests.contract.contract import ProvenanceStorageContract

_KEPT = ("schema_version", "exchange_range")


class TestGrpcAdapter(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self, shared_stack: Stack, module_postgres_dsn: str) -> Iterator[ProvenanceStorageInterface]:
        _empty(module_postgres_dsn)
        with ProvenanceStorageGrpc(url=shared_stack.address) as storage:
            yield storage


def _empty(dsn: str) -> None:
    """Empties the tables: a stack of its own for every test would take minutes."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> ALL (%s)",
            [list(_KEPT)],
        )
        tables = [sql.Identifier(name) for (name,) in cursor.fetchall()]
        cursor.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(tables)))
    connection.close()
