"""The reference and the storages over databases keep the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from tests.contract.contract import ProvenanceStorageContract
from tests.contract.databases import LARGE_COUNT_OF_MONGODB, empty_mongodb, empty_postgresql
from tests.contract.reference import InMemoryProvenanceStorage


class TestReference(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self) -> ProvenanceStorageInterface:
        return InMemoryProvenanceStorage()


class TestPostgreSql(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self, module_postgres_dsn: str) -> Iterator[ProvenanceStorageInterface]:
        with ProvenanceStoragePostgreSql(db=module_postgres_dsn) as storage:
            storage.setup({})
            empty_postgresql(module_postgres_dsn)
            yield storage


class TestMongoDb(ProvenanceStorageContract):
    large_count = LARGE_COUNT_OF_MONGODB

    @pytest.fixture
    def storage(self, module_mongodb_url: str) -> Iterator[ProvenanceStorageInterface]:
        with ProvenanceStorageMongoDb(db=module_mongodb_url) as storage:
            storage.setup({"content": 16})
            empty_mongodb(module_mongodb_url)
            yield storage
