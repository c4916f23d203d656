"""The adapter, over a gateway and workers on PostgreSQL, keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.stack import Stack
from provgate_storage.interface import ProvenanceStorageInterface
from tests.contract.contract import ProvenanceStorageContract
from tests.contract.databases import empty_postgresql


class TestGrpcOverPostgreSql(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self, shared_stack: Stack, module_postgres_dsn: str) -> Iterator[ProvenanceStorageInterface]:
        empty_postgresql(module_postgres_dsn)
        with ProvenanceStorageGrpc(url=shared_stack.address) as storage:
            yield storage
