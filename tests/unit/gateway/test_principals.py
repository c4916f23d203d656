"""Who calls, by what a call shows."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import pytest

from provgate_gateway.access.principals import Callers, Principal
from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import TokenLine, digest_of
from provgate_gateway.errors import CallError

TOKEN = "s3cret-token"
LINES = [TokenLine("ci", Role.WRITER, digest_of(TOKEN))]
CERTIFICATES = {"indexer.example": Role.WRITER, "auditor": Role.READER}
CALLERS = Callers(lambda: LINES, CERTIFICATES)

AuthContext = Mapping[str, list[bytes]]


def certificate(*alternatives: bytes, common: bytes | None = None) -> AuthContext:
    names = {"x509_subject_alternative_name": list(alternatives)}
    return names if common is None else {**names, "x509_common_name": [common]}


def identified(auth_context: AuthContext, *authorizations: str) -> Principal:
    metadata = [("user-agent", "test"), *(("authorization", value) for value in authorizations)]
    return CALLERS.identify(metadata, lambda: auth_context)


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_holder_of_a_token(authorization: str) -> None:
    assert identified({}, authorization) == Principal("ci", Role.WRITER)


@pytest.mark.parametrize(
    ("auth_context", "principal"),
    [
        (certificate(b"indexer.example"), Principal("indexer.example", Role.WRITER)),
        (certificate(b"other.example", b"indexer.example"), Principal("indexer.example", Role.WRITER)),
        (certificate(common=b"auditor"), Principal("auditor", Role.READER)),
        (certificate(b"indexer.example", common=b"auditor"), Principal("indexer.example", Role.WRITER)),
        (certificate(b"other.example", common=b"auditor"), Principal("auditor", Role.READER)),
    ],
)
def test_the_first_name_of_a_certificate_that_is_known(auth_context: AuthContext, principal: Principal) -> None:
    assert identified(auth_context) == principal


def test_a_token_counts_before_a_certificate() -> None:
    assert identified(certificate(common=b"auditor"), f"Bearer {TOKEN}") == Principal("ci", Role.WRITER)


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
        # Who shows a token means it.
        (certificate(common=b"auditor"), ["Bearer wrong"]),
        (certificate(common=b"auditor"), [f"Basic {TOKEN}"]),
    ],
)
def test_nobody_who_is_known(auth_context: AuthContext, authorizations: list[str]) -> None:
    with pytest.raises(CallError) as raised:
        identified(auth_context, *authorizations)
    assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert TOKEN not in str(raised.value)


def test_tls_is_not_asked_where_no_name_is_known() -> None:
    def auth_context() -> AuthContext:
        raise AssertionError("asked")

    with pytest.raises(CallError):
        Callers(lambda: LINES, {}).identify([], auth_context)
