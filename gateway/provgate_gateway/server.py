"""The gateway as a whole: builds its parts, serves until it is told to stop, and takes them down in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from provgate.v1 import provenance_storage_pb2_grpc
from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import RangePolicy
from provgate_gateway.access.certificates import TlsFiles, reloaded_credentials
from provgate_gateway.access.control import access_control
from provgate_gateway.access.principals import current_principal
from provgate_gateway.health.health import SERVICE, HealthServicer, HealthWatch
from provgate_gateway.health.range_agreement import agree_on_ranges
from provgate_gateway.health.readiness import Readiness
from provgate_gateway.health.start_gate import StartGate
from provgate_gateway.health.topology_monitor import Inspected, Inspection
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
from provgate_gateway.write.flow_control import FlowControl, Load, Quota
from provgate_gateway.write.memory_budget import MESSAGE_MAX_BYTES
from provgate_gateway.write.splitting import Intake
from provgate_runtime import ConfigurationError
from provgate_runtime.addresses import is_loopback
from provgate_runtime.watch.statsd import Durations
from provgate_runtime.watch.watching import WatchAddress, watched
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import ProvenanceResult

logger = logging.getLogger(__name__)

_PATH: Final = "provenance.gateway"
_PORT_MAX: Final = 65535


def host_and_port(listen: str) -> tuple[str, int]:
    """Returns the two parts of an address; the host of an IPv6 address keeps its brackets.

    Raises:
        ConfigurationError: there is no such port: gRPC would take another one.
    """
    host, _, port = listen.rpartition(":")
    if int(port) > _PORT_MAX:
        raise ConfigurationError(f"{_PATH}.listen: a port is at most {_PORT_MAX}, not {port}")
    return host, int(port)


def is_taken(host: str, port: int) -> bool:
    """Returns whether somebody serves on a port at any of a host's addresses; gRPC is content with one that is free."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return False
    return any(_is_in_use(family, address) for family, _, _, _, address in found)


def _is_in_use(family: socket.AddressFamily, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def server_credentials(settings: GatewaySettings) -> grpc.ServerCredentials | None:
    """Returns the credentials to serve with; None for plain text.

    Raises:
        ConfigurationError: the address is none, plain text is not allowed on it, or a file cannot be read or is not
            what it is said to be.
    """
    host, _ = host_and_port(settings.listen)
    if settings.tls_certificate is None and settings.tls_key is None:
        _check_plain_text(settings, host)
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise ConfigurationError(f"{_PATH}.tls_certificate and tls_key: give both or neither")
    return reloaded_credentials(TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca))


def _check_plain_text(settings: GatewaySettings, host: str) -> None:
    if settings.tls_client_ca is not None:
        raise ConfigurationError(f"{_PATH}.tls_client_ca: it needs tls_certificate and tls_key")
    if not settings.insecure and not is_loopback(host):
        raise ConfigurationError(
            f"{_PATH}.listen: {settings.listen} can be reached from other machines, in plain text: give tls_certificate"
            " and tls_key, or --insecure"
        )


UNREAD_MAX_BYTES: Final = 64 * 1024
METADATA_MAX_BYTES: Final = 16 * 1024
CONNECTION_MAX_CALLS: Final = 200

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    # Above the first gRPC would refuse calls at random, the more the larger.
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
    # gRPC reads the first message of a call before anybody asks for it: of one connection, so many are in memory.
    # Further calls of a client wait in the client.
    ("grpc.max_concurrent_streams", CONNECTION_MAX_CALLS),
    # It would count calls that have ended until Python lets them go, and refuse calls of a client that keeps to the
    # number above, without a reason. Clients that reset calls fill what the next two bound.
    ("grpc.http.overload_protection", 0),
    # Calls that have come and that no handler has yet. From the first number on gRPC ends calls at random, beyond the
    # second every one, with CANCELLED and no reason. The gateway refuses calls itself, with a reason, and much sooner.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    # Two gateways on one port would share its calls without anybody's notice.
    ("grpc.so_reuseport", 0),
    # What a call may send that nobody asked for; by itself gRPC raises this to megabytes for each call.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", UNREAD_MAX_BYTES),
    # A client that vanished without a word is found out, and its call ended.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class ListenError(Exception):
    """The address cannot be served on."""


@dataclass(frozen=True)
class Backends:
    """What the gateway stands in front of.

    Attributes:
        parameters: the broker.
        policy: the range counts.
        rabbitmq: what the broker's queues should be.
        storage: what is read from; None where another deployment's workers own it.
        sum_replies: whether those workers may reply several times to one package.
    """

    parameters: AmqpParameters
    policy: RangePolicy
    rabbitmq: RabbitMqSettings
    storage: LocalStorage | None
    sum_replies: bool


class Gateway:
    """A gateway.

    Args:
        settings: how it serves.
        backends: what it stands in front of.
        durations: is told how long each call took.
    """

    def __init__(self, settings: GatewaySettings, backends: Backends, durations: Durations) -> None:
        self._settings = settings
        self._backends = backends
        self._durations = durations
        self._credentials = server_credentials(settings)
        encrypted = self._credentials is not None
        client_ca, private = settings.tls_client_ca is not None, encrypted or settings.is_local
        self._access = access_control(settings.access, client_ca=client_ca, private=private)
        self._stopping = asyncio.Event()
        self._registry = CollectorRegistry()
        self._metrics = GatewayMetrics(self._registry)
        self._readiness = Readiness()
        self._gate = StartGate(SERVICE)

    def stop(self) -> None:
        """Has `run` stop. May be called again; on the loop's thread only."""
        self._readiness.set("stopping", "the gateway was told to stop")
        self._stopping.set()

    async def run(self, on_serving: Callable[[str], None]) -> None:
        """Serves until `stop`, and returns once everything is shut down.

        While broker and storage are waited for, health is answered, and every other call ends UNAVAILABLE.

        The order of the end: health says NOT_SERVING, new calls are refused, calls in flight get the grace period,
        then the broker connections close, then the storage. Whoever watches sees all of it.

        Args:
            on_serving: called with host and port once calls are taken.

        Raises:
            ListenError, WatchPortError: the address cannot be served on.
            SchemaMismatchError, TopologyError: the range counts are not those of the workers.
        """
        self._begin_conditions()
        async with watched(self._watch_address(), self._registry, list, self._readiness.conditions):
            try:
                await self._serve(on_serving)
            finally:
                if self._backends.storage is not None:
                    self._backends.storage.close()

    def _watch_address(self) -> WatchAddress:
        default = METRICS_LISTEN if self._settings.is_local else None
        return WatchAddress("provenance.gateway.metrics_listen", self._settings.metrics_listen, default)

    def _begin_conditions(self) -> None:
        self._readiness.set("stopping")
        self._readiness.set("ranges", "the gateway waits until it can compare them with those of the workers")
        self._readiness.set("broker", "not connected yet")
        if self._backends.storage is not None:
            self._readiness.set("storage", "not asked yet")

    async def _agreed(self) -> bool:
        """Returns whether the range counts agree, or False once the gateway is told to stop."""
        backends = self._backends
        agreeing = asyncio.create_task(
            agree_on_ranges(backends.parameters, backends.policy, backends.storage, self._readiness.set)
        )
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({agreeing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not agreeing.cancel():
            agreeing.result()
            return True
        return False

    async def _serve(self, on_serving: Callable[[str], None]) -> None:
        settings, backends = self._settings, self._backends
        health_servicer = HealthServicer()
        dispatcher = Dispatcher(
            backends.parameters,
            "provgate-gateway",
            self._metrics,
            sum_replies=backends.sum_replies,
            queue_max_bytes=backends.rabbitmq.queue_max_length_bytes if backends.rabbitmq.topology == "own" else None,
            on_change=lambda: watch.broker_changed(),
        )
        watch = HealthWatch(health_servicer, backends.storage, backends.policy, lambda: dispatcher.connected)
        inspection = self._inspection(dispatcher)
        self._registry.register(inspection)
        unary_reads = UnaryReads[ProvenanceResult | None](
            CallLimit("unary reads", settings.max_calls, settings.unary_reads)
        )
        by_id_reads = self._streamed_reads("reads by id", settings.by_id_reads)
        listings = self._streamed_reads("listings", settings.listings)
        intake = Intake(backends.policy, settings.batch_size)
        in_flight = CallsInFlight()
        servicer = ProvenanceStorageServicer(
            self._write_calls(dispatcher, intake),
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
            if await self._agreed():
                self._readiness.set("ranges")
                for each in (dispatcher, watch, inspection):
                    self._readiness.add(each.conditions)
                    background.append(asyncio.create_task(each.run()))
                self._gate.is_open = True
                on_serving(address)
                await self._until_stopped(background)
            await watch.stop()
            await self._end(server, in_flight)
        finally:
            await server.stop(None)
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            intake.close()
            for reads in (unary_reads, by_id_reads, listings):
                reads.close()

    async def _end(self, server: grpc.aio.Server, in_flight: CallsInFlight) -> None:
        grace_s = self._settings.grace_s
        # From here on new calls are refused. By itself this waits for the streams of every service.
        refusing = asyncio.create_task(server.stop(grace_s + 2 * LAST_WORDS_S))
        await in_flight.end(grace_s)
        await server.stop(None)
        await refusing

    def _inspection(self, dispatcher: Dispatcher) -> Inspection:
        backends, settings = self._backends, self._settings
        inspected = Inspected(backends.parameters, backends.policy, backends.rabbitmq, settings.tls_certificate)
        return Inspection(inspected, settings.inspection_interval_s, lambda: dispatcher.blocked)

    def _streamed_reads(self, kind: str, turns: int) -> StreamedReads:
        settings = self._settings
        limit = CallLimit(kind, settings.max_calls, turns, settings.streamed_read_wait_s)
        return StreamedReads(limit, settings.streamed_read_idle_s, settings.streamed_read_rate)

    def _write_calls(self, dispatcher: Dispatcher, intake: Intake) -> Callable[[str], WriteCall]:
        settings = self._settings
        bound = Load(settings.max_unacked_entries, settings.max_unacked_bytes)
        flow_control = FlowControl(
            Load(settings.max_unacked_entries_per_call, settings.max_unacked_bytes_per_call),
            bound,
        )
        self._metrics.show_flow(flow_control, bound)
        policy = WritePolicy(settings.wait_min_s, settings.wait_per_batch_s, settings.first_message_wait_s, intake)
        return lambda caller: WriteCall(dispatcher, flow_control.share(caller, self._quota()), policy, self._metrics)

    def _quota(self) -> Quota | None:
        return None if self._access is None else self._access.limits.quota(current_principal())

    def _server(self, servicer: ProvenanceStorageServicer, health_servicer: HealthServicer) -> grpc.aio.Server:
        interceptors: list[Any] = [self._gate, DecodingInterceptor(SERVICE)]
        if self._access is not None:
            interceptors.insert(0, self._access.interceptor)
        interceptors.insert(0, CallCountingInterceptor(self._metrics, self._durations))
        server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        provenance_storage_pb2_grpc.add_ProvenanceStorageServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        if self._settings.reflects:
            reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        return server

    def _bind(self, server: grpc.aio.Server) -> str:
        listen = self._settings.listen
        host, port = host_and_port(listen)
        if is_taken(host, port):
            raise ListenError(f"{listen} cannot be served on: the port is taken")
        try:
            if self._credentials is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, self._credentials)
        except RuntimeError as error:
            raise ListenError(f"{listen} cannot be served on: no such address, or the port is not allowed") from error
        return f"{host}:{port}"

    async def _until_stopped(self, background: list[asyncio.Task[None]]) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait({stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            # Nothing in the background ends by itself: what it raised is a fault, and the gateway ends with it.
            task.result()
