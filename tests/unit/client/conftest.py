from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

from provgate_client.storage import ProvenanceStorageGrpc
from tests.unit.client.gateway import GatewayDouble

OpenStorage: TypeAlias = Callable[..., ProvenanceStorageGrpc]


@pytest.fixture
def gateway() -> Iterator[GatewayDouble]:
    with GatewayDouble() as running:
        yield running


@pytest.fixture
def open_storage(gateway: GatewayDouble) -> Iterator[OpenStorage]:
    """Returns what opens an adapter to the gateway; closed at the end."""
    with ExitStack() as stack:

        def open_it(**settings: Any) -> ProvenanceStorageGrpc:
            return stack.enter_context(ProvenanceStorageGrpc(**{"url": gateway.address} | settings))

        yield open_it


@pytest.fixture
def storage(open_storage: OpenStorage) -> ProvenanceStorageGrpc:
    return open_storage()
