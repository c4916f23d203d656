"""What the gateway counts: every metric that it has.

Counted for each call, message and package, never for each entry. Labels are methods, status codes, exchanges and
ranges: there are as many series as the service and the topology have of these, whatever callers send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from provgate_broker.topology.inspection import TopologyReport
from provgate_broker.topology.policy import Exchange, WriteMethod, parse_binding_key
from provgate_gateway.write.flow_control import FlowControl, Load
from provgate_gateway.write.splitting import Package
from provgate_runtime.watch.metric_set import COUNT_BUCKETS, DURATION_BUCKETS_S, SIZE_BUCKETS_BYTES, MetricSet

_LABELS: Final = ("exchange", "operation", "range")


def queue_metrics(report: TopologyReport | None) -> list[Metric]:
    """Returns the gauges of an inspection; empty ones where there was none."""
    depth = GaugeMetricFamily("provgate_gateway_queue_depth", "Packages that wait in a work queue.", labels=_LABELS)
    consumers = GaugeMetricFamily("provgate_gateway_queue_consumers", "Consumers of a work queue.", labels=_LABELS)
    aside = GaugeMetricFamily(
        "provgate_gateway_aside_depth", "Packages in the dead-letter and the quarantine queue.", labels=("queue",)
    )
    if report is not None:
        for queue, found in report.work.items():
            if found.state is not None:
                labels = (queue.exchange.value, queue.operation.label, f"{queue.range_number:x}")
                depth.add_metric(labels, found.state.message_count)
                consumers.add_metric(labels, found.state.consumer_count)
        for found in report.aside.values():
            if found.state is not None:
                aside.add_metric((found.name,), found.state.message_count)
    return [depth, consumers, aside]


PREFIX: Final = "provgate_gateway"


@dataclass(frozen=True, slots=True)
class _MethodSeries:
    """The series of one method that writes."""

    received: Counter
    published: Counter
    confirmed: Counter
    acked: Counter
    package_entries: Histogram
    package_bytes: Histogram
    to_confirm: Histogram
    to_ack: Histogram


@dataclass(frozen=True, slots=True)
class _ExchangeSeries:
    """The series of one exchange."""

    publications: Counter
    republications: Counter
    returned: Counter
    nacked: Counter
    refused: Counter


class CallMetrics:
    """Counts the calls of one method. Thread-safe."""

    def __init__(self, in_flight: Gauge, duration: Histogram, calls_of_code: Callable[[str], Counter]) -> None:
        self._in_flight = in_flight
        self._duration = duration
        self._calls_of_code = calls_of_code
        self._calls: dict[str, Counter] = {}

    def began(self) -> None:
        """Counts a call that runs from now on."""
        self._in_flight.inc()

    def ended(self, code: str, duration_s: float) -> None:
        """Counts a call that has run, by the name of its status code."""
        self._in_flight.dec()
        self._duration.observe(duration_s)
        calls = self._calls.get(code)
        if calls is None:
            calls = self._calls[code] = self._calls_of_code(code)
        calls.inc()


class GatewayMetrics:
    """The metrics of one gateway. Thread-safe.

    Args:
        registry: where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        made = MetricSet(PREFIX, registry)
        method = ("method",)
        self._calls = made.counter("calls", "Calls that have ended, by status code.", ("method", "code"))
        self._calls_in_flight = made.gauge("calls_in_flight", "Calls that run.", method)
        self._call_duration = made.histogram(
            "call_duration_seconds", "From a call's start to its status.", DURATION_BUCKETS_S, method
        )
        self._received = made.counter("entries_received", "Entries of messages that were checked and cut.", method)
        self._published = made.counter("entries_published", "Entries of packages handed to the broker, once.", method)
        self._confirmed = made.counter("entries_confirmed", "Entries of packages that the broker has safe.", method)
        self._acked = made.counter("entries_acked", "Entries that workers have committed.", method)
        self._package_entries = made.histogram("package_entries", "Entries of a package.", COUNT_BUCKETS, method)
        self._package_bytes = made.histogram(
            "package_bytes", "Size of the body of a package.", SIZE_BUCKETS_BYTES, method
        )
        self._to_confirm = made.histogram(
            "publish_to_confirm_seconds",
            "From the latest publication of a package to its confirm.",
            DURATION_BUCKETS_S,
            method,
        )
        self._to_ack = made.histogram(
            "publish_to_ack_seconds", "From the first publication of a package to its ack.", DURATION_BUCKETS_S, method
        )
        exchange = ("exchange",)
        self._publications = made.counter("publications", "Packages handed to the broker, each time.", exchange)
        self._republications = made.counter(
            "republications", "Of these the ones that were made again after a lost connection.", exchange
        )
        self._returned = made.counter("packages_returned", "Packages that no queue took.", exchange)
        self._nacked = made.counter(
            "packages_nacked", "Packages that the broker refused: a full queue, mostly.", exchange
        )
        self._refused = made.counter("packages_refused", "Packages that a worker refused.", exchange)
        self._broker_connected = made.gauge(
            "broker_connected", "1 while there is the connection: publisher, or replies.", ("connection",)
        )
        self._broker_blocked = made.gauge("broker_blocked", "1 while the broker blocks publishers.")
        self._unacked_entries = made.gauge("unacked_entries", "Entries admitted and not acked.")
        self._unacked_bytes = made.gauge("unacked_bytes", "Bytes of packages admitted and not acked.")
        self._unacked_bound_entries = made.gauge("unacked_bound_entries", "The most entries that may be unacked.")
        self._unacked_bound_bytes = made.gauge("unacked_bound_bytes", "The most bytes that may be unacked or wait.")
        self._waiting_bytes = made.gauge("waiting_bytes", "Bytes of messages that are read and not admitted.")
        self.described = made.described
        # All of them at once, so that they are there, and 0, before anything has happened.
        self._of_methods = {method: self._of_method(method.value) for method in WriteMethod}
        self._of_exchanges = {exchange: self._of_exchange(exchange.value) for exchange in Exchange}
        # By routing key, since that is what a package has.
        self._of_keys: dict[str, _MethodSeries] = {}

    def of_calls(self, method: str) -> CallMetrics:
        """Returns what counts the calls of one method. To be kept: it makes new series known."""
        return CallMetrics(
            self._calls_in_flight.labels(method),
            self._call_duration.labels(method),
            lambda code: self._calls.labels(method, code),
        )

    def received(self, package: Package, entry_count: int) -> None:
        """Counts the entries of a message, one of whose packages is given."""
        self._of_package(package).received.inc(entry_count)

    def published(self, package: Package, *, again: bool) -> None:
        """Counts a publication."""
        of_exchange = self._of_exchanges[package.exchange]
        of_exchange.publications.inc()
        if again:
            of_exchange.republications.inc()
            return
        of_method = self._of_package(package)
        of_method.published.inc(package.entry_count)
        of_method.package_entries.observe(package.entry_count)
        of_method.package_bytes.observe(len(package.body))

    def confirmed(self, package: Package) -> None:
        """Counts a package that is safe in the broker, or acked before that was said."""
        self._of_package(package).confirmed.inc(package.entry_count)

    def confirm_took(self, package: Package, duration_s: float) -> None:
        """Notes how long a confirm took."""
        self._of_package(package).to_confirm.observe(duration_s)

    def acked(self, package: Package, duration_s: float) -> None:
        """Counts a package that is committed, so long after it was published first."""
        of_method = self._of_package(package)
        of_method.acked.inc(package.entry_count)
        of_method.to_ack.observe(duration_s)

    def returned(self, package: Package) -> None:
        """Counts a package that no queue took."""
        self._of_exchanges[package.exchange].returned.inc()

    def nacked(self, package: Package) -> None:
        """Counts a package that a full queue refused."""
        self._of_exchanges[package.exchange].nacked.inc()

    def refused(self, package: Package) -> None:
        """Counts a package that a worker refused."""
        self._of_exchanges[package.exchange].refused.inc()

    def show_broker(
        self, publishing: Callable[[], bool], replying: Callable[[], bool], blocked: Callable[[], bool]
    ) -> None:
        """Has the state of the connections asked for whenever somebody looks; on any thread."""
        self._broker_connected.labels("publisher").set_function(publishing)
        self._broker_connected.labels("replies").set_function(replying)
        self._broker_blocked.set_function(blocked)

    def show_flow(self, flow_control: FlowControl, bound: Load) -> None:
        """Has what is not acked asked for whenever somebody looks; on any thread."""
        self._unacked_entries.set_function(lambda: flow_control.unacked.entry_count)
        self._unacked_bytes.set_function(lambda: flow_control.unacked.size_bytes)
        self._waiting_bytes.set_function(lambda: flow_control.waiting_bytes)
        self._unacked_bound_entries.set(bound.entry_count)
        self._unacked_bound_bytes.set(bound.size_bytes)

    def _of_package(self, package: Package) -> _MethodSeries:
        found = self._of_keys.get(package.routing_key)
        if found is None:
            operation, _ = parse_binding_key(package.routing_key)
            found = self._of_keys[package.routing_key] = self._of_methods[operation.method]
        return found

    def _of_method(self, method: str) -> _MethodSeries:
        return _MethodSeries(
            received=self._received.labels(method),
            published=self._published.labels(method),
            confirmed=self._confirmed.labels(method),
            acked=self._acked.labels(method),
            package_entries=self._package_entries.labels(method),
            package_bytes=self._package_bytes.labels(method),
            to_confirm=self._to_confirm.labels(method),
            to_ack=self._to_ack.labels(method),
        )

    def _of_exchange(self, exchange: str) -> _ExchangeSeries:
        return _ExchangeSeries(
            publications=self._publications.labels(exchange),
            republications=self._republications.labels(exchange),
            returned=self._returned.labels(exchange),
            nacked=self._nacked.labels(exchange),
            refused=self._refused.labels(exchange),
        )
