"""Who calls, what each role may do, and the limits of each principal."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from provgate.v1 import errors_pb2, provenance_storage_pb2
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Callers, Principal
from provgate_gateway.access.roles import NEEDED, PUBLIC, Role, needed_role
from provgate_gateway.access.tokens import TokenLine, digest_of
from provgate_gateway.errors import CallError
from provgate_gateway.settings import LimitSettings

TOKEN = "s3cret-token"
CERTIFICATES = {"indexer.example": Role.WRITER, "auditor": Role.READER}
LINES = [TokenLine("ci", Role.WRITER, digest_of(TOKEN))]
CALLERS = Callers(lambda: LINES, CERTIFICATES)

CI = Principal("ci", Role.WRITER)
INDEXER = Principal("indexer.example", Role.WRITER)
AUDITOR = Principal("auditor", Role.READER)
ROOT = Principal("root", Role.ADMIN)

AuthContext = Mapping[str, list[bytes]]


def certificate(*alternatives: bytes, common: bytes | None = None) -> AuthContext:
    names = {"x509_subject_alternative_name": list(alternatives)}
    return names if common is None else {**names, "x509_common_name": [common]}


def identified(auth_context: AuthContext, *authorizations: str) -> Principal:
    metadata = [("user-agent", "test"), *(("authorization", value) for value in authorizations)]
    return CALLERS.identify(metadata, lambda: auth_context)


@pytest.mark.parametrize(
    ("auth_context", "authorizations", "principal"),
    [
        ({}, [f"Bearer {TOKEN}"], CI),
        ({}, [f"bearer {TOKEN}"], CI),
        ({}, [f"BEARER  {TOKEN} "], CI),
        # A token counts before a certificate.
        (certificate(common=b"auditor"), [f"Bearer {TOKEN}"], CI),
        # The first known name of a certificate counts.
        (certificate(b"indexer.example"), [], INDEXER),
        (certificate(b"other.example", b"indexer.example"), [], INDEXER),
        (certificate(common=b"auditor"), [], AUDITOR),
        (certificate(b"indexer.example", common=b"auditor"), [], INDEXER),
        (certificate(b"other.example", common=b"auditor"), [], AUDITOR),
    ],
)
def test_known_callers(auth_context: AuthContext, authorizations: list[str], principal: Principal) -> None:
    assert identified(auth_context, *authorizations) == principal


@pytest.mark.parametrize(
    ("auth_context", "authorizations"),
    [
        ({}, []),
        (certificate(b"other.example", common=b"other"), []),
        (certificate(b"\xff"), []),
        ({}, ["Bearer wrong"]),
        ({}, ["Bearer"]),
        ({}, [""]),
        ({}, [TOKEN]),
        ({}, [f"Basic {TOKEN}"]),
        ({}, [f"Bearer {digest_of(TOKEN)}"]),
        ({}, [f"Bearer {TOKEN}", f"Bearer {TOKEN}"]),
        # A wrong token fails even with a known certificate.
        (certificate(common=b"auditor"), ["Bearer wrong"]),
        (certificate(common=b"auditor"), [f"Basic {TOKEN}"]),
    ],
)
def test_unknown_callers(auth_context: AuthContext, authorizations: list[str]) -> None:
    with pytest.raises(CallError) as raised:
        identified(auth_context, *authorizations)
    assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert TOKEN not in str(raised.value)


def test_the_certificate_is_not_read_if_no_name_is_known() -> None:
    def auth_context() -> AuthContext:
        raise AssertionError("read")

    with pytest.raises(CallError):
        Callers(lambda: LINES, {}).identify([], auth_context)


def rpcs(*files: FileDescriptor) -> set[str]:
    services = [service for file in files for service in file.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


def test_the_tables_list_every_rpc_and_no_other() -> None:
    served = rpcs(provenance_storage_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    assert {*NEEDED} | PUBLIC == served
    assert PUBLIC.isdisjoint(NEEDED)


def test_adds_need_a_writer_other_rpcs_a_reader_and_unlisted_ones_an_admin() -> None:
    for rpc in rpcs(provenance_storage_pb2.DESCRIPTOR):
        assert needed_role(rpc) is (Role.WRITER if rpc.endswith("Add") else Role.READER), rpc
    assert needed_role("/provgate.v1.ProvenanceStorage/ContentRemove") is Role.ADMIN
    assert needed_role("/grpc.health.v1.Health/Check") is None


def test_each_role_includes_those_before_it() -> None:
    included = {role: {other for other in Role if role.includes(other)} for role in Role}
    assert included == {
        Role.READER: {Role.READER},
        Role.WRITER: {Role.READER, Role.WRITER},
        Role.ADMIN: {Role.READER, Role.WRITER, Role.ADMIN},
    }


def test_concurrent_calls_are_limited_for_each_principal() -> None:
    limits = PrincipalLimits(LimitSettings(max_calls=2))
    limits.begin_call(CI)
    limits.begin_call(CI)
    for _ in range(2):
        with pytest.raises(CallError) as raised:
            limits.begin_call(CI)
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raised.value.reason == errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT
    assert raised.value.retry_delay_s == 1
    limits.begin_call(AUDITOR)
    limits.end_call(CI)
    limits.begin_call(CI)


def test_admins_and_settings_without_a_value_have_no_limits() -> None:
    limited, unlimited = (
        PrincipalLimits(LimitSettings(max_calls=1, max_unacked_entries=1, entries_per_second=1)),
        PrincipalLimits(LimitSettings()),
    )
    for _ in range(5):
        limited.begin_call(ROOT)
        unlimited.begin_call(CI)
    assert limited.quota(ROOT) is None
    assert PrincipalLimits(LimitSettings(max_calls=1)).quota(CI) is None


def test_the_writes_of_a_principal_share_a_quota() -> None:
    limits = PrincipalLimits(LimitSettings(max_unacked_entries=5, entries_per_second=7))
    quota = limits.quota(CI)
    assert quota is limits.quota(Principal("ci", Role.WRITER))
    assert quota is not limits.quota(AUDITOR)
    assert quota is not None
    assert quota.bound.entry_count == 5
    assert quota.rate is not None
