"""Which addresses only this machine reaches."""

from __future__ import annotations

import pytest

from provgate_runtime.addresses import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "[::]", "192.168.0.1", "10.0.0.1", "example.org", "localhost.example.org", "", "127.1", "[fe80::1]"],
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
