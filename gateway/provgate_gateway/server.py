"""The gateway: builds its parts, serves calls until it is stopped, and shuts the parts down in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from provgate.v1 import provenance_storage_pb2_grpc
from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import RangePolicy
from provgate_gateway.access.certificates import certificate_problem, host_and_port, server_credentials
from provgate_gateway.access.control import access_control
from provgate_gateway.access.principals import current_principal
from provgate_gateway.health.health import SERVICE, HealthServicer, HealthWatch, Readiness
from provgate_gateway.health.start import StartGate, agree_on_ranges
from provgate_gateway.health.topology_monitor import TopologyMonitor
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.dispatcher import Dispatcher
from provgate_gateway.read.streamed import StreamedReads
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_gateway.rpc.handler_wrappers import (
    LAST_WORDS_S,
    CallCountingInterceptor,
    CallsInFlight,
    DecodingInterceptor,
)
from provgate_gateway.rpc.servicer import ProvenanceStorageServicer
from provgate_gateway.settings import METRICS_LISTEN, GatewaySettings
from provgate_gateway.write.call import WriteCall, WritePolicy
from provgate_gateway.write.flow_control import FlowControl, Load
from provgate_gateway.write.memory_budget import MESSAGE_MAX_BYTES
from provgate_gateway.write.splitting import Splitter
from provgate_runtime.watch.conditions import Condition
from provgate_runtime.watch.port import WatchAddress, watched
from provgate_runtime.watch.statsd import Durations
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import ProvenanceResult

logger = logging.getLogger(__name__)

_PATH: Final = "provenance.gateway"

UNREAD_MAX_BYTES: Final = 64 * 1024
METADATA_MAX_BYTES: Final = 16 * 1024
CONNECTION_MAX_CALLS: Final = 200

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    # Above the soft limit gRPC refuses calls at random, so both are the same.
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
    # gRPC reads the first message of a call before a handler asks for it, so this bounds the memory of a connection.
    # Further calls wait in the client.
    ("grpc.max_concurrent_streams", CONNECTION_MAX_CALLS),
    # It counts ended calls until Python frees them, and would refuse calls of a client that keeps to the limit above.
    # The next two options bound what clients that reset calls can fill.
    ("grpc.http.overload_protection", 0),
    # Calls that no handler has yet. From the first number on gRPC ends calls at random, above the second all, with
    # CANCELLED and no reason. The gateway refuses calls much sooner, with a reason.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    # Two gateways on one port would share its calls unnoticed.
    ("grpc.so_reuseport", 0),
    # The bytes that a call may send before they are read. By default gRPC raises this to megabytes for each call.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", UNREAD_MAX_BYTES),
    # Detects clients that vanished, and ends their calls.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class ListenError(Exception):
    """The gateway cannot listen on the address."""


@dataclass(frozen=True)
class Backends:
    """The servers behind the gateway.

    Attributes:
        parameters: the broker.
        policy: the range counts.
        rabbitmq: what the broker's queues should be.
        storage: the storage for reads; None with `topology: existing`, if it belongs to another deployment's workers.
    """

    parameters: AmqpParameters
    policy: RangePolicy
    rabbitmq: RabbitMqSettings
    storage: LocalStorage | None


class Gateway:
    """A gateway.

    Args:
        settings: the gateway's settings.
        backends: the servers behind it.
        durations: gets the duration of each call.

    Raises:
        ConfigurationError: the address, a TLS file or the file of tokens is invalid.
    """

    def __init__(self, settings: GatewaySettings, backends: Backends, durations: Durations) -> None:
        self._settings = settings
        self._backends = backends
        self._durations = durations
        self._credentials = server_credentials(settings)
        self._access = access_control(
            settings.access,
            client_ca=settings.tls_client_ca is not None,
            private=self._credentials is not None or settings.is_local,
        )
        self._stopping = asyncio.Event()
        self._registry = CollectorRegistry()
        self._metrics = GatewayMetrics(self._registry)
        self._readiness = Readiness()
        self._gate = StartGate(SERVICE)

    def stop(self) -> None:
        """Makes `run` stop. May be called again; on the loop's thread only."""
        self._readiness.set("stopping", "the gateway was told to stop")
        self._stopping.set()

    async def run(self, on_serving: Callable[[str], None]) -> None:
        """Serves until `stop`, and returns when everything is shut down.

        Until broker and storage have confirmed the range counts, the gateway answers health checks and ends all other
        calls with UNAVAILABLE.

        The order at the end: health says NOT_SERVING, new calls are refused, calls in flight get the grace period, the
        broker connections close, then the storage. The watch port answers until the end.

        Args:
            on_serving: called with host and port when calls are taken.

        Raises:
            ListenError, WatchPortError: the gateway cannot listen on an address.
            SchemaMismatchError, TopologyError: the workers have other range counts.
        """
        settings, storage = self._settings, self._backends.storage
        self._readiness.set("stopping")
        self._readiness.set("ranges", "the gateway waits until it can compare them with those of the workers")
        self._readiness.set("broker", "not connected yet")
        if storage is not None:
            self._readiness.set("storage", "not asked yet")
        default_listen = METRICS_LISTEN if settings.is_local else None
        watch_address = WatchAddress(f"{_PATH}.metrics_listen", settings.metrics_listen, default_listen)
        async with watched(watch_address, self._registry, list, self._readiness.conditions):
            try:
                await self._serve(on_serving)
            finally:
                if storage is not None:
                    storage.close()

    async def _serve(self, on_serving: Callable[[str], None]) -> None:
        settings, backends = self._settings, self._backends
        health_servicer = HealthServicer()
        own_topology = backends.rabbitmq.topology == "own"
        dispatcher = Dispatcher(
            backends.parameters,
            "provgate-gateway",
            self._metrics,
            # Another deployment's workers may reply several times to one package.
            sum_replies=not own_topology,
            queue_max_bytes=backends.rabbitmq.queue_max_length_bytes if own_topology else None,
            on_change=lambda: watch.broker_changed(),
        )
        watch = HealthWatch(health_servicer, backends.storage, backends.policy, lambda: dispatcher.connected)
        monitor = TopologyMonitor(
            backends.parameters, backends.policy, backends.rabbitmq, settings.inspection_interval_s
        )
        self._registry.register(monitor)
        splitter = Splitter(backends.policy, settings.batch_size)
        in_flight = CallsInFlight()
        unary_reads = UnaryReads[ProvenanceResult | None](
            CallLimit("unary reads", settings.max_calls, settings.unary_reads)
        )
        by_id_reads = self._streamed_reads("reads by id", settings.by_id_reads)
        listings = self._streamed_reads("listings", settings.listings)
        servicer = ProvenanceStorageServicer(
            self._write_calls(dispatcher, splitter),
            backends.storage,
            CallLimit("writes", settings.max_calls),
            unary_reads,
            by_id_reads,
            listings,
            in_flight,
        )
        server = self._server(servicer, health_servicer)
        address = self._bind(server)
        await watch.start()
        background: list[asyncio.Task[None]] = []
        try:
            await server.start()
            if await self._ranges_agree():
                self._readiness.set("ranges")
                self._readiness.add(lambda: self._own_conditions(dispatcher))
                for part in (dispatcher, watch, monitor):
                    self._readiness.add(part.conditions)
                    background.append(asyncio.create_task(part.run()))
                self._gate.is_open = True
                on_serving(address)
                await self._until_stopped(background)
            await watch.stop()
            # From here on new calls are refused. Alone this would wait for the streams of every service.
            refusing = asyncio.create_task(server.stop(settings.grace_s + 2 * LAST_WORDS_S))
            await in_flight.end(settings.grace_s)
            await server.stop(None)
            await refusing
        finally:
            await server.stop(None)
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            splitter.close()
            for reads in (unary_reads, by_id_reads, listings):
                reads.close()

    def _own_conditions(self, dispatcher: Dispatcher) -> Sequence[Condition]:
        blocked = "the broker blocks publishers: it is short of memory or of disk" if dispatcher.blocked else None
        expired = certificate_problem(self._settings.tls_certificate, datetime.now(UTC))
        return [Condition("blocked", blocked), Condition("certificate", expired)]

    def _streamed_reads(self, kind: str, turns: int) -> StreamedReads:
        settings = self._settings
        limit = CallLimit(kind, settings.max_calls, turns, settings.streamed_read_wait_s)
        return StreamedReads(limit, settings.streamed_read_idle_s, settings.streamed_read_rate)

    def _write_calls(self, dispatcher: Dispatcher, splitter: Splitter) -> Callable[[str], WriteCall]:
        """Returns what makes the `WriteCall` of a caller, within the task of the call."""
        settings, access = self._settings, self._access
        bound = Load(settings.max_unacked_entries, settings.max_unacked_bytes)
        call_bound = Load(settings.max_unacked_entries_per_call, settings.max_unacked_bytes_per_call)
        flow_control = FlowControl(call_bound, bound)
        self._metrics.show_flow(flow_control, bound)
        policy = WritePolicy(settings.wait_min_s, settings.wait_per_batch_s, settings.first_message_wait_s, splitter)

        def write_call(caller: str) -> WriteCall:
            quota = None if access is None else access.limits.quota(current_principal())
            return WriteCall(dispatcher, flow_control.share(caller, quota), policy, self._metrics)

        return write_call

    def _server(self, servicer: ProvenanceStorageServicer, health_servicer: HealthServicer) -> grpc.aio.Server:
        interceptors: list[grpc.aio.ServerInterceptor] = [CallCountingInterceptor(self._metrics, self._durations)]
        if self._access is not None:
            interceptors.append(self._access)
        interceptors += [self._gate, DecodingInterceptor(SERVICE)]
        server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        provenance_storage_pb2_grpc.add_ProvenanceStorageServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        if self._settings.reflects:
            reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        return server

    def _bind(self, server: grpc.aio.Server) -> str:
        listen = self._settings.listen
        host, port = host_and_port(listen)
        if port_in_use(host, port):
            raise ListenError(f"{listen} cannot be served on: the port is taken")
        try:
            if self._credentials is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, self._credentials)
        except RuntimeError as error:
            raise ListenError(f"{listen} cannot be served on: no such address, or the port is not allowed") from error
        return f"{host}:{port}"

    async def _ranges_agree(self) -> bool:
        """Returns True once the range counts agree, or False when the gateway is told to stop first."""
        backends = self._backends
        agreeing = asyncio.create_task(
            agree_on_ranges(backends.parameters, backends.policy, backends.storage, self._readiness)
        )
        await self._first_or_stopped([agreeing])
        if not agreeing.cancel():
            agreeing.result()
            return True
        return False

    async def _until_stopped(self, background: list[asyncio.Task[None]]) -> None:
        # The tasks run until they are cancelled. One that ends has failed, and the gateway ends with it.
        for task in await self._first_or_stopped(background):
            task.result()

    async def _first_or_stopped(self, tasks: list[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        """Returns those of some tasks that have ended, once one has, or when the gateway is told to stop."""
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return [task for task in tasks if task.done()]


def port_in_use(host: str, port: int) -> bool:
    """Returns whether a port is in use on any of a host's addresses. gRPC is content with one that is free."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return False
    for family, _, _, _, address in found:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
    return False
