"""The figures from two scrapes of programs, and their picture."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from provgate_operations.top.figures import Figures, Latency, figures, first_figures, quantile
from provgate_operations.top.scrape import Role, Scrape, Source, scrape_all
from provgate_operations.top.view import view

GATEWAY, OTHER = Source(Role.GATEWAY, "one:9464"), Source(Role.GATEWAY, "two:9464")
SILENT = Source(Role.WORKERS, "gone:9465")
BOUND = 1000


def scraped(source: Source, taken_at: float, registry: CollectorRegistry) -> Scrape:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return Scrape(source, taken_at, {name.name: [s for s in samples if s.name == name.name] for name in samples})


def gateway(source: Source, taken_at: float, acked: int, depths: tuple[int, ...] = (), consumers: int = 1) -> Scrape:
    """A scrape of a gateway that has acked `acked` entries, each within 0.2 s."""
    registry = CollectorRegistry()
    Counter("provgate_gateway_entries_acked", "", ["method"], registry=registry).labels("content_add").inc(acked)
    to_ack = Histogram("provgate_gateway_publish_to_ack_seconds", "", ["method"], buckets=(0.1, 0.3), registry=registry)
    for _ in range(acked):
        to_ack.labels("content_add").observe(0.2)
    Gauge("provgate_gateway_unacked_entries", "", registry=registry).set(250)
    Gauge("provgate_gateway_unacked_bound_entries", "", registry=registry).set(BOUND)
    labels = ["exchange", "operation", "range"]
    depth = Gauge("provgate_gateway_queue_depth", "", labels, registry=registry)
    consumed = Gauge("provgate_gateway_queue_consumers", "", labels, registry=registry)
    for number, packages in enumerate(depths):
        depth.labels("content", "content_add", f"{number:x}").set(packages)
        consumed.labels("content", "content_add", f"{number:x}").set(consumers)
    Gauge("provgate_gateway_dead_letter_depth", "", ["queue"], registry=registry).labels("provgate.dead-letters").set(3)
    connected = Gauge("provgate_gateway_broker_connected", "", ["connection"], registry=registry)
    connected.labels("publisher").set(1)
    connected.labels("replies").set(0)
    return scraped(source, taken_at, registry)


def silent(taken_at: float) -> Scrape:
    return Scrape(SILENT, taken_at, problem="Connection refused")


def test_rates_are_those_of_all_programs_together() -> None:
    before = [gateway(GATEWAY, 10, 100), gateway(OTHER, 10, 50), silent(10)]
    now = [gateway(GATEWAY, 12, 300), gateway(OTHER, 12, 60), silent(12)]
    found = figures(before, now)
    assert found.interval_s == 2
    assert found.rates["acked"] == pytest.approx(100 + 5)
    assert found.rates["received"] == 0
    assert (found.unacked_entries.used, found.unacked_entries.bound) == (500, 2 * BOUND)


def test_the_counters_of_a_restarted_program_begin_at_zero() -> None:
    assert figures([gateway(GATEWAY, 10, 500)], [gateway(GATEWAY, 12, 20)]).rates["acked"] == pytest.approx(10)


def test_a_program_that_does_not_answer_is_shown_beside_the_others() -> None:
    found = figures([gateway(GATEWAY, 1, 0), silent(1)], [gateway(GATEWAY, 2, 7), silent(2)])
    assert found.rates["acked"] == pytest.approx(7)
    assert [program.problem for program in found.programs] == [None, "Connection refused"]


@pytest.mark.parametrize("address", ["127.0.0.1:port", "127.0.0.1:1", "[::1"])
def test_an_address_that_is_wrong_or_does_not_answer_is_a_problem(address: str) -> None:
    (scrape,) = scrape_all([Source(Role.GATEWAY, address)])
    assert scrape.problem


def test_a_program_that_answers_for_the_first_time_has_no_rate() -> None:
    before = Scrape(GATEWAY, 1, problem="Connection refused")
    assert figures([before], [gateway(GATEWAY, 2, 7)]).rates["acked"] == 0


def test_latencies_are_those_between_the_scrapes() -> None:
    assert figures([gateway(GATEWAY, 1, 5)], [gateway(GATEWAY, 2, 5)]).latencies["publish to ack"] == Latency(
        None, None
    )
    latency = figures([gateway(GATEWAY, 1, 5)], [gateway(GATEWAY, 2, 9)]).latencies["publish to ack"]
    assert latency.p50_s == pytest.approx(0.2)
    assert latency.p99_s == pytest.approx(0.298)


def test_several_gateways_inspect_the_same_queues() -> None:
    now = [gateway(GATEWAY, 2, 0, (1, 0, 4)), gateway(OTHER, 2, 0, (1, 2, 3))]
    (content,) = figures(now, now).ranges
    assert (content.exchange, content.operation, content.depths) == ("content", "content_add", [1, 2, 4])
    assert content.unconsumed == []
    assert figures(now, now).dead_letters == 3


def test_ranges_without_a_consumer_are_named_in_hexadecimal() -> None:
    now = [gateway(GATEWAY, 2, 0, (0,) * 16, consumers=0)]
    assert figures(now, now).ranges[0].unconsumed[-1] == "f"


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({1: 0, math.inf: 0}, 0.5, None),
        ({1: 10, 2: 10, math.inf: 10}, 0.5, 0.5),
        ({1: 0, 2: 10, math.inf: 10}, 0.5, 1.5),
        ({1: 5, 2: 10, math.inf: 10}, 0.5, 1),
        ({1: 5, 2: 5, 4: 10, math.inf: 10}, 0.99, 3.96),
        # Beyond the last bound nothing is known.
        ({1: 1, 2: 1, math.inf: 10}, 0.99, 2),
    ],
)
def test_quantiles(buckets: dict[float, float], share: float, expected: float | None) -> None:
    assert quantile(buckets, share) == (None if expected is None else pytest.approx(expected))


def drawn(found: Figures) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as captured:
        console.print(view(found))
    return captured.get()


@pytest.mark.parametrize("is_first", [True, False])
def test_the_picture_has_all_figures(is_first: bool) -> None:
    now = [gateway(GATEWAY, 2, 0, (0, 0, 9), consumers=0), silent(2)]
    text = drawn(first_figures(now) if is_first else figures(now, now))
    for part in ("one:9464", "publisher 1", "does not answer: Connection refused", "··█", "no consumer: 0, 1, 2"):
        assert part in text
    assert "250 of 1,000 (25%)" in text


def test_a_picture_of_nothing() -> None:
    assert "no gateway has inspected queues yet" in drawn(figures([silent(1)], [silent(2)]))
