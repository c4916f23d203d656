"""Every RPC that the gateway serves has a role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from provgate.v1 import provenance_storage_pb2
from provgate_gateway.access.roles import NEEDED, PUBLIC, Role, needed_role

SERVED = (provenance_storage_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
SERVICE = "/provgate.v1.ProvenanceStorage/"


def rpcs(file: FileDescriptor) -> Iterator[str]:
    for service in file.services_by_name.values():
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}"


def test_the_tables_name_every_rpc_and_no_other() -> None:
    assert {*NEEDED} | PUBLIC == {rpc for file in SERVED for rpc in rpcs(file)}
    assert PUBLIC.isdisjoint(NEEDED)


def test_what_adds_is_for_writers_and_everything_else_for_readers() -> None:
    for rpc in rpcs(provenance_storage_pb2.DESCRIPTOR):
        assert needed_role(rpc) is (Role.WRITER if rpc.endswith("Add") else Role.READER), rpc


def test_an_rpc_that_no_table_names_is_for_admins() -> None:
    assert needed_role(f"{SERVICE}ContentRemove") is Role.ADMIN
    assert needed_role("/grpc.health.v1.Health/Check") is None


@pytest.mark.parametrize(
    ("role", "included"),
    [
        (Role.READER, {Role.READER}),
        (Role.WRITER, {Role.READER, Role.WRITER}),
        (Role.ADMIN, {Role.READER, Role.WRITER, Role.ADMIN}),
    ],
)
def test_each_role_may_what_those_before_it_may(role: Role, included: set[Role]) -> None:
    assert {other for other in Role if role.includes(other)} == included
