"""Every metric of the gateway.

They are counted for each call, message or package, never for each entry. Labels are methods, status codes, exchanges
and ranges, so the service and the topology bound the number of series, whatever callers send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from provgate_broker.topology.inspection import TopologyReport
from provgate_broker.topology.policy import Exchange, WriteMethod, parse_binding_key
from provgate_gateway.write.flow_control import FlowControl, Load
from provgate_gateway.write.splitting import Package
from provgate_runtime.watch.metric_set import COUNT_BUCKETS, DURATION_BUCKETS_S, SIZE_BUCKETS_BYTES, MetricSet

PREFIX: Final = "provgate_gateway"

_RANGE_LABELS: Final = ("exchange", "operation", "range")
_BY_METHOD: Final = ("method",)
_BY_EXCHANGE: Final = ("exchange",)


class CallMetrics:
    """Counts the calls of one method. Thread-safe."""

    def __init__(self, metrics: GatewayMetrics, method: str) -> None:
        self._calls = metrics.calls
        self._method = method
        self._in_flight = metrics.calls_in_flight.labels(method)
        self._duration = metrics.call_duration.labels(method)

    def began(self) -> None:
        """Counts a call that has begun."""
        self._in_flight.inc()

    def ended(self, code: str, duration_s: float) -> None:
        """Counts a call that has ended, by the name of its status code."""
        self._in_flight.dec()
        self._duration.observe(duration_s)
        self._calls.labels(self._method, code).inc()


class GatewayMetrics:
    """The metrics of one gateway. Thread-safe.

    Args:
        registry: the registry that /metrics shows.

    Attributes:
        described: the metrics, for the reference.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        made = MetricSet(PREFIX, registry)
        counter, gauge, histogram = made.counter, made.gauge, made.histogram
        self.described = made.described
        self.calls = counter("calls", "Calls that have ended, by status code.", ("method", "code"))
        self.calls_in_flight = gauge("calls_in_flight", "Calls that run.", _BY_METHOD)
        self.call_duration = histogram(
            "call_duration_seconds", "From a call's start to its status.", DURATION_BUCKETS_S, _BY_METHOD
        )
        self._received = counter("entries_received", "Entries of messages that were checked and split.", _BY_METHOD)
        self._published = counter("entries_published", "Entries of packages, at their first publish.", _BY_METHOD)
        self._confirmed = counter("entries_confirmed", "Entries of packages that the broker has stored.", _BY_METHOD)
        self._acked = counter("entries_acked", "Entries that workers have committed.", _BY_METHOD)
        self._package_entries = histogram("package_entries", "Entries of a package.", COUNT_BUCKETS, _BY_METHOD)
        self._package_bytes = histogram("package_bytes", "Size of a package's body.", SIZE_BUCKETS_BYTES, _BY_METHOD)
        self._to_confirm = histogram(
            "publish_to_confirm_seconds",
            "From the last publish of a package to its confirm.",
            DURATION_BUCKETS_S,
            _BY_METHOD,
        )
        self._to_ack = histogram(
            "publish_to_ack_seconds", "From the first publish of a package to its ack.", DURATION_BUCKETS_S, _BY_METHOD
        )
        self._publications = counter("publications", "Publishes of packages, repeated ones included.", _BY_EXCHANGE)
        self._republications = counter("republications", "Repeated publishes, after a lost connection.", _BY_EXCHANGE)
        self._returned = counter("packages_returned", "Packages that no queue took.", _BY_EXCHANGE)
        self._nacked = counter("packages_nacked", "Packages that the broker refused, mostly: full queue.", _BY_EXCHANGE)
        self._refused = counter("packages_refused", "Packages that a worker refused.", _BY_EXCHANGE)
        self._broker_connected = gauge(
            "broker_connected", "1 while the connection is open: publisher or replies.", ("connection",)
        )
        self._broker_blocked = gauge("broker_blocked", "1 while the broker blocks publishers.")
        self._unacked_entries = gauge("unacked_entries", "Entries admitted and not acked.")
        self._unacked_bytes = gauge("unacked_bytes", "Bytes of packages admitted and not acked.")
        self._unacked_bound_entries = gauge("unacked_bound_entries", "Maximum of unacked entries.")
        self._unacked_bound_bytes = gauge("unacked_bound_bytes", "Maximum of unacked and waiting bytes.")
        self._waiting_bytes = gauge("waiting_bytes", "Bytes of messages received and not admitted.")
        self._methods_by_routing_key: dict[str, str] = {}
        # Every series exists from the start, with the value 0.
        of_methods = (self._received, self._published, self._confirmed, self._acked)
        of_packages = (self._package_entries, self._package_bytes, self._to_confirm, self._to_ack)
        for method in WriteMethod:
            for metric in (*of_methods, *of_packages):
                metric.labels(method.value)
        of_exchanges = (self._publications, self._republications, self._returned, self._nacked, self._refused)
        for exchange in Exchange:
            for metric in of_exchanges:
                metric.labels(exchange.value)

    def of_calls(self, method: str) -> CallMetrics:
        """Returns the metrics of the calls of one method. Its series exist from then on."""
        return CallMetrics(self, method)

    def received(self, package: Package, entry_count: int) -> None:
        """Counts the entries of a message, given one of its packages."""
        self._received.labels(self._method_of(package)).inc(entry_count)

    def published(self, package: Package, *, again: bool) -> None:
        """Counts a publish."""
        self._publications.labels(package.exchange.value).inc()
        if again:
            self._republications.labels(package.exchange.value).inc()
            return
        method = self._method_of(package)
        self._published.labels(method).inc(package.entry_count)
        self._package_entries.labels(method).observe(package.entry_count)
        self._package_bytes.labels(method).observe(len(package.body))

    def confirmed(self, package: Package) -> None:
        """Counts a package that the broker has confirmed, or that was acked before its confirm."""
        self._confirmed.labels(self._method_of(package)).inc(package.entry_count)

    def confirm_took(self, package: Package, duration_s: float) -> None:
        """Records the time to a confirm."""
        self._to_confirm.labels(self._method_of(package)).observe(duration_s)

    def acked(self, package: Package, duration_s: float) -> None:
        """Counts a package that is committed, with the time since its first publish."""
        method = self._method_of(package)
        self._acked.labels(method).inc(package.entry_count)
        self._to_ack.labels(method).observe(duration_s)

    def returned(self, package: Package) -> None:
        """Counts a package that no queue took."""
        self._returned.labels(package.exchange.value).inc()

    def nacked(self, package: Package) -> None:
        """Counts a package that the broker refused."""
        self._nacked.labels(package.exchange.value).inc()

    def refused(self, package: Package) -> None:
        """Counts a package that a worker refused."""
        self._refused.labels(package.exchange.value).inc()

    def show_broker(
        self, publishing: Callable[[], bool], replying: Callable[[], bool], blocked: Callable[[], bool]
    ) -> None:
        """Sets the functions that return the state of the connections. They are called on any thread."""
        self._broker_connected.labels("publisher").set_function(publishing)
        self._broker_connected.labels("replies").set_function(replying)
        self._broker_blocked.set_function(blocked)

    def show_flow(self, flow_control: FlowControl, bound: Load) -> None:
        """Sets the flow control whose state is shown. It is read on any thread."""
        self._unacked_entries.set_function(lambda: flow_control.unacked.entry_count)
        self._unacked_bytes.set_function(lambda: flow_control.unacked.size_bytes)
        self._waiting_bytes.set_function(lambda: flow_control.waiting_bytes)
        self._unacked_bound_entries.set(bound.entry_count)
        self._unacked_bound_bytes.set(bound.size_bytes)

    def _method_of(self, package: Package) -> str:
        method = self._methods_by_routing_key.get(package.routing_key)
        if method is None:
            method = parse_binding_key(package.routing_key)[0].method.value
            self._methods_by_routing_key[package.routing_key] = method
        return method


def queue_metrics(report: TopologyReport | None) -> list[Metric]:
    """Returns the gauges of an inspection; without samples if `report` is None."""
    depth = GaugeMetricFamily(f"{PREFIX}_queue_depth", "Packages that wait in a work queue.", labels=_RANGE_LABELS)
    consumers = GaugeMetricFamily(f"{PREFIX}_queue_consumers", "Consumers of a work queue.", labels=_RANGE_LABELS)
    dead_letters = GaugeMetricFamily(
        f"{PREFIX}_dead_letter_depth", "Packages in the dead-letter and the quarantine queue.", labels=("queue",)
    )
    if report is not None:
        for queue, found in report.work.items():
            if found.state is not None:
                labels = (queue.exchange.value, queue.operation.label, f"{queue.range_number:x}")
                depth.add_metric(labels, found.state.message_count)
                consumers.add_metric(labels, found.state.consumer_count)
        for found in report.dead_letter_queues.values():
            if found.state is not None:
                dead_letters.add_metric((found.name,), found.state.message_count)
    return [depth, consumers, dead_letters]
