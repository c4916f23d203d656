"""The adapter, over a gateway double with the reference storage, keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provgate_client.storage import ProvenanceStorageGrpc
from provgate_storage.interface import ProvenanceStorageInterface
from tests.contract.contract import ProvenanceStorageContract
from tests.support.gateway_double import GatewayDouble


class TestGrpc(ProvenanceStorageContract):
    @pytest.fixture
    def storage(self) -> Iterator[ProvenanceStorageInterface]:
        with GatewayDouble() as gateway, ProvenanceStorageGrpc(url=gateway.address) as storage:
            yield storage
