"""What each principal may use."""

from __future__ import annotations

import grpc
import pytest

from provgate.v1 import errors_pb2
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Principal
from provgate_gateway.access.roles import Role
from provgate_gateway.errors import CallError
from provgate_gateway.settings import LimitSettings

CI = Principal("ci", Role.WRITER)
WEB = Principal("web", Role.READER)
ROOT = Principal("root", Role.ADMIN)


def test_calls_at_once_are_counted_for_each_principal_until_they_end() -> None:
    limits = PrincipalLimits(LimitSettings(max_calls=2))
    end, _ = limits.begin_call(CI), limits.begin_call(CI)
    for _ in range(2):
        with pytest.raises(CallError) as raised:
            limits.begin_call(CI)
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raised.value.reason == errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT
    assert raised.value.retry_delay_s == 1
    limits.begin_call(WEB)
    end()
    limits.begin_call(CI)


def test_admins_and_what_is_not_set_have_no_limits() -> None:
    limited = PrincipalLimits(LimitSettings(max_calls=1, max_unacked_entries=1, entries_per_second=1))
    for _ in range(5):
        limited.begin_call(ROOT)
        PrincipalLimits(LimitSettings()).begin_call(CI)
    assert limited.quota(ROOT) is None
    assert PrincipalLimits(LimitSettings(max_calls=1)).quota(CI) is None


def test_the_writes_of_a_principal_share_a_quota() -> None:
    limits = PrincipalLimits(LimitSettings(max_unacked_entries=5, entries_per_second=7))
    quota = limits.quota(CI)
    assert quota is limits.quota(Principal("ci", Role.WRITER))
    assert quota is not limits.quota(WEB)
    assert quota is not None
    assert quota.bound.entry_count == 5
    assert quota.rate is not None
