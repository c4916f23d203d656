"""The reference and the storages over databases keep the contract."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from tests.contract.contract import ProvenanceStorageContract, shuffled
from tests.contract.databases import LARGE_COUNT_OF_MONGODB, empty_mongodb, empty_postgresql
from tests.support.examples import Write, apply, example_scope, state_of, writes
from tests.support.reference import InMemoryProvenanceStorage


class TestReference(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self) -> ProvenanceStorageInterface:
        return InMemoryProvenanceStorage()

    @given(sent=st.lists(writes(registers=False), max_size=6), again=st.randoms(use_true_random=False))
    def test_any_order_and_repetition_ends_in_the_same_state(self, sent: list[Write], again: random.Random) -> None:
        scope, found, expected = example_scope(), InMemoryProvenanceStorage(), InMemoryProvenanceStorage()
        for write in sent:
            apply(expected, write, scope)
        for write in shuffled(sent, again):
            apply(found, write, scope)
        assert state_of(found) == state_of(expected)

    @given(sent=st.lists(writes(registers=True), max_size=6), again=st.randoms(use_true_random=False))
    def test_registers_end_in_one_of_the_values_sent(self, sent: list[Write], again: random.Random) -> None:
        scope, storage = example_scope(), InMemoryProvenanceStorage()
        for write in shuffled(sent, again):
            apply(storage, write, scope)
        urls, preferred = scope.registers_of(sent)
        found = storage.origin_get(scope.ids)
        assert found.keys() == urls.keys()
        assert all(url in urls[origin] for origin, url in found.items())
        known = {id: data.origin for id, data in storage.revision_get(scope.ids).items() if data.origin is not None}
        assert known.keys() == preferred.keys()
        assert all(origin in preferred[revision] for revision, origin in known.items())


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
