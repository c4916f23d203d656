"""The watch port, the heartbeat of an event loop, and durations for statsd."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry, Counter

from provgate_runtime.watch.conditions import Condition, Heartbeat
from provgate_runtime.watch.port import WatchAddress, WatchPort, WatchPortError, watched
from provgate_runtime.watch.statsd import DurationSender, statsd_address
from tests.support.polling import until
from tests.support.watch_port import probe, value


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def run(address: WatchAddress) -> None:
    async def main() -> None:
        async with watched(address, CollectorRegistry(), list, list):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_metrics_and_conditions_are_served(host: str) -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    ready = [Condition("broker", "away"), Condition("storage")]
    with WatchPort(host, 0, registry, list, lambda: ready) as port:
        assert value(port.address, "things_total") == 3
        assert probe(port.address, "/healthz").ok
        assert not probe(port.address, "/readyz").ok
        assert probe(port.address, "/readyz").problems == {"broker": "away", "storage": None}


def test_other_paths_and_methods_are_refused() -> None:
    with WatchPort("127.0.0.1", 0, CollectorRegistry(), list, list) as port:
        for request, status in ((f"http://{port.address}/", 404), (posted(port.address), 405)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=10)
            assert caught.value.code == status
            caught.value.close()


def posted(address: str) -> urllib.request.Request:
    return urllib.request.Request(f"http://{address}/metrics", data=b"", method="POST")


def test_close_is_idempotent_and_frees_the_address() -> None:
    port = WatchPort("127.0.0.1", 0, CollectorRegistry(), list, list)
    port.close()
    port.close()
    number = int(port.address.rpartition(":")[2])
    WatchPort("127.0.0.1", number, CollectorRegistry(), list, list).close()


def test_a_given_address_that_is_taken_is_an_error(taken: str) -> None:
    with pytest.raises(WatchPortError, match=rf"a\.setting: {taken} cannot be served on"):
        run(WatchAddress("a.setting", taken, None))


def test_an_invalid_port_is_an_error() -> None:
    with pytest.raises(WatchPortError, match="cannot be served on"):
        run(WatchAddress("a.setting", "127.0.0.1:70000", None))


def test_a_default_address_that_is_taken_is_a_warning(taken: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(WatchAddress("a.setting", None, taken))
    assert taken in caplog.text


@pytest.mark.parametrize("address", [WatchAddress("s", "off", "127.0.0.1:1"), WatchAddress("s", None, None)], ids=str)
def test_off_is_no_port(address: WatchAddress, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(address)
    assert not caplog.records


def test_one_connection_too_many_ends_the_oldest() -> None:
    with WatchPort("127.0.0.1", 0, CollectorRegistry(), list, list) as port:
        host, _, number = port.address.rpartition(":")
        idle = []
        try:
            for _ in range(40):
                idle.append(socket.create_connection((host, int(number)), timeout=10))
                assert probe(port.address, "/healthz").ok
            assert idle[0].recv(1) == b""
            assert probe(port.address, "/readyz").ok
        finally:
            for connection in idle:
                connection.close()


def test_a_request_that_is_too_long_is_ended() -> None:
    with WatchPort("127.0.0.1", 0, CollectorRegistry(), list, list) as port:
        host, _, number = port.address.rpartition(":")
        with socket.create_connection((host, int(number)), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5_000)
            response = b""
            with suppress(ConnectionResetError):
                while received := connection.recv(65536):
                    response += received
            assert not response.startswith(b"HTTP/1.0 200")


def test_a_blocked_loop_is_late_until_it_runs_again() -> None:
    heartbeat = Heartbeat(late_after_s=0.2)
    release = threading.Event()
    seen: list[str | None] = []

    def watch() -> None:
        while heartbeat.conditions()[0].holds:
            threading.Event().wait(0.01)
        seen.append(heartbeat.conditions()[0].problem)
        release.set()

    async def main() -> None:
        beating = asyncio.create_task(heartbeat.run())
        await until(lambda: heartbeat.conditions()[0].holds)
        watching = threading.Thread(target=watch)
        watching.start()
        # The loop does nothing else meanwhile.
        assert release.wait(10)
        watching.join()
        await until(lambda: heartbeat.conditions()[0].holds)
        beating.cancel()

    asyncio.run(main())
    assert "has been blocked for" in str(seen[0])


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
def test_an_address_that_cannot_be_resolved_is_one_warning(
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


def test_no_server_and_a_server_that_is_away_are_no_error() -> None:
    with DurationSender(None, "provgate") as durations:
        durations.send("content_add", 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with DurationSender(address, "provgate") as durations:
        for _ in range(10):
            durations.send("content_add", 1.0)
