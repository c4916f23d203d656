"""Which statsd server is told durations, and what it gets."""

from __future__ import annotations

import logging
import socket

import pytest

from provgate_runtime.watch.statsd import DurationSender, statsd_address


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        (None, {}, None),
        (None, {"STATSD_PORT": "1"}, None),
        (None, {"STATSD_HOST": ""}, None),
        (None, {"STATSD_HOST": "127.0.0.1"}, "127.0.0.1:8125"),
        (None, {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": "99"}, "127.0.0.1:99"),
        (None, {"STATSD_HOST": "::1"}, "[::1]:8125"),
        ("127.0.0.1:7", {"STATSD_HOST": "127.0.0.2"}, "127.0.0.1:7"),
        ("[::1]:7", {}, "[::1]:7"),
    ],
)
def test_a_setting_comes_before_the_environment(
    given: str | None, environment: dict[str, str], address: str | None
) -> None:
    assert statsd_address("a.setting", given, environment) == address


@pytest.mark.parametrize(
    ("given", "environment", "named"),
    [
        ("no-such-host.invalid:1", {}, "a.setting"),
        ("a..b:1", {}, "a.setting"),
        (None, {"STATSD_HOST": "127.0.0.1", "STATSD_PORT": "none"}, "STATSD_HOST"),
    ],
)
def test_what_cannot_be_resolved_is_one_warning(
    given: str | None, environment: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert statsd_address("a.setting", given, environment) is None
    assert len(caplog.records) == 1
    assert named in caplog.text


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_durations_are_sent_in_milliseconds(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        server.settimeout(10)
        port = server.getsockname()[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with DurationSender(address, "provgate.gateway") as durations:
            durations.send("content_add", 0.25)
        assert server.recv(1024) == b"provgate.gateway.content_add:250.000000|ms"


def test_nobody_is_told_where_there_is_no_server_and_one_that_is_away_is_no_error() -> None:
    with DurationSender(None, "provgate") as durations:
        durations.send("content_add", 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with DurationSender(address, "provgate") as durations:
        for _ in range(10):
            durations.send("content_add", 1.0)
