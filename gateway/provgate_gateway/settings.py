"""The section `provenance.gateway` of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, field

from provgate_config import Settings
from provgate_config.addresses import Address, AddressOrOff
from provgate_config.loopback import is_loopback
from provgate_gateway.access.settings import AccessSettings

SECTION: Final = "gateway"
METRICS_LISTEN: Final = "127.0.0.1:9464"

_MIB: Final = 1024 * 1024


class GatewaySettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the gateway serves. Durations are in seconds and sizes in bytes."""

    listen: Annotated[
        Address,
        Meta(description="Host and port to serve on; port 0 takes a free one."),
    ] = "127.0.0.1:50051"

    insecure: Annotated[bool, Meta(description="Serve in plain text on an address that other machines reach.")] = False

    tls_certificate: Annotated[str | None, Meta(description="A PEM file with the certificate chain to serve with.")] = (
        None
    )

    tls_key: Annotated[str | None, Meta(description="A PEM file with the certificate's private key.")] = None

    tls_client_ca: Annotated[
        str | None,
        Meta(
            description="A PEM file with the authorities whose client certificates are required, of callers with a "
            "token too."
        ),
    ] = None

    access: Annotated[AccessSettings, Meta(description="Who may call, and how much of the gateway each may use.")] = (
        field(default_factory=AccessSettings)
    )

    reflection: Annotated[
        bool | None,
        Meta(
            description="Whether tools such as grpcurl are told what the service is (server reflection). Where not "
            "given, on an address that only this machine reaches."
        ),
    ] = None

    storage_config: Annotated[
        dict[str, Any] | None,
        Meta(
            description="The local storage to read from, for example with a user that may only read. That of "
            "provenance.rabbitmq where not given.",
            extra={"option": False},
        ),
    ] = None

    batch_size: Annotated[int, Meta(ge=1, description="The most entries of a package.")] = 5000

    wait_min_s: Annotated[
        float, Meta(gt=0, description="Seconds that a write may go without progress, whatever it waits for.")
    ] = field(default=60.0, name="wait_min")

    wait_per_batch_s: Annotated[
        float,
        Meta(ge=0, description="Seconds without progress for each package that is not acked, where that is more."),
    ] = field(default=10.0, name="wait_per_batch")

    max_calls: Annotated[int, Meta(ge=1, description="The most writes and unary reads at once.")] = 1000

    max_unacked_entries: Annotated[
        int, Meta(ge=1, description="The most entries that are not acked, of all writes together.")
    ] = 2_000_000

    max_unacked_bytes: Annotated[
        int, Meta(ge=1, description="The most bytes of packages that are not acked, of all writes together.")
    ] = 256 * _MIB

    max_waiting_bytes: Annotated[
        int,
        Meta(
            ge=64 * _MIB,
            description="The most bytes of packages of writes that wait at one of these bounds; more are refused.",
        ),
    ] = 256 * _MIB

    max_unacked_entries_per_call: Annotated[
        int, Meta(ge=1, description="The most entries of one write that are not acked.")
    ] = 200_000

    max_unacked_bytes_per_call: Annotated[
        int, Meta(ge=1, description="The most bytes of one write's packages that are not acked.")
    ] = 32 * _MIB

    unary_reads: Annotated[
        int, Meta(ge=1, le=256, description="How many unary reads ask the storage at once; more of them wait.")
    ] = 8

    streamed_reads: Annotated[int, Meta(ge=1, le=256, description="The most streamed reads at once.")] = 16

    streamed_read_wait_s: Annotated[
        float, Meta(ge=0, description="Seconds that a streamed read waits for its turn when as many run.")
    ] = field(default=5.0, name="streamed_read_wait")

    streamed_read_idle_s: Annotated[
        float, Meta(gt=0, description="Seconds that a streamed read waits for a client to take what it sent.")
    ] = field(default=60.0, name="streamed_read_idle")

    inspection_interval_s: Annotated[
        float, Meta(ge=1, description="Seconds from one look at the broker's queues and consumers to the next.")
    ] = field(default=15.0, name="inspection_interval")

    grace_s: Annotated[float, Meta(ge=0, description="Seconds that calls in flight have to finish after SIGTERM.")] = (
        field(default=30.0, name="grace")
    )

    metrics_listen: Annotated[
        AddressOrOff | None,
        Meta(
            description="Host and port of /metrics, /healthz and /readyz over HTTP, or `off`. Where not given, "
            f"{METRICS_LISTEN} if `listen` is a loopback address, else off.",
            extra={"off": True},
        ),
    ] = None

    statsd: Annotated[
        Address | None,
        Meta(
            description="Host and port of a statsd server that is told how long each call took. Where not given, those "
            "of the environment variables STATSD_HOST and STATSD_PORT (8125), if there are any.",
        ),
    ] = None

    @property
    def reflects(self) -> bool:
        """Whether the gateway serves reflection."""
        return self.is_local if self.reflection is None else self.reflection

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_loopback(self.listen.rpartition(":")[0])
