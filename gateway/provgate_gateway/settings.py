"""The section `provenance.gateway` of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, field

from provgate_gateway.access.roles import Role
from provgate_runtime import Settings
from provgate_runtime.addresses import Address, AddressOrOff, is_loopback

_Count = Annotated[int, Meta(ge=1)]


class LimitSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of each principal except admins. None means no limit."""

    max_calls: Annotated[_Count | None, Meta(description="Maximum concurrent calls of a principal.")] = None

    max_unacked_entries: Annotated[
        _Count | None, Meta(description="Maximum unacked entries of all writes of a principal.")
    ] = None

    entries_per_second: Annotated[_Count | None, Meta(description="Maximum entries per second of a principal.")] = None


class AccessSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call. Without tokens and certificates everybody may do everything."""

    tokens_file: Annotated[
        str | None,
        Meta(description="A file of lines `<name> <role> <SHA-256 of the token in hex>`; `provgate token` makes them."),
    ] = None

    certificates: Annotated[
        dict[str, Role],
        Meta(
            description="The role (reader, writer or admin) of each client certificate, by a subject alternative name "
            "or the common name. Needs tls_client_ca."
        ),
    ] = field(default_factory=dict)

    limits: Annotated[LimitSettings, Meta(description="The limits of each principal.")] = field(
        default_factory=LimitSettings
    )

    def __post_init__(self) -> None:
        if not self.is_controlled and self.limits != LimitSettings():
            raise ValueError("limits: they are for each principal, and need tokens_file or certificates")

    @property
    def is_controlled(self) -> bool:
        """Whether calls need credentials."""
        return self.tokens_file is not None or bool(self.certificates)


SECTION: Final = "gateway"
METRICS_LISTEN: Final = "127.0.0.1:9464"

_MIB: Final = 1024 * 1024


class GatewaySettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of the gateway. Durations are in seconds and sizes in bytes."""

    listen: Annotated[
        Address,
        Meta(description="Host and port to serve on; port 0 means any free port."),
    ] = "127.0.0.1:50051"

    insecure: Annotated[bool, Meta(description="Serve in plain text on an address that other machines can reach.")] = (
        False
    )

    tls_certificate: Annotated[
        str | None, Meta(description="A PEM file with the server certificate and its chain.")
    ] = None

    tls_key: Annotated[str | None, Meta(description="A PEM file with the certificate's private key.")] = None

    tls_client_ca: Annotated[
        str | None,
        Meta(
            description="A PEM file with authorities. Clients then need a certificate of one of them, even with a "
            "token."
        ),
    ] = None

    access: Annotated[AccessSettings, Meta(description="Who may call, and the limits of each caller.")] = field(
        default_factory=AccessSettings
    )

    reflection: Annotated[
        bool | None,
        Meta(
            description="Serve reflection, for tools such as grpcurl. Default: on an address that only this machine "
            "can reach."
        ),
    ] = None

    storage_config: Annotated[
        dict[str, Any] | None,
        Meta(
            description="The local storage to read from, for example with a read-only user. Default: the storage of "
            "provenance.rabbitmq.",
            extra={"option": False},
        ),
    ] = None

    batch_size: Annotated[int, Meta(ge=1, description="Maximum entries of a package.")] = 5000

    wait_min_s: Annotated[float, Meta(gt=0, description="Seconds that a write may go without progress.")] = field(
        default=60.0, name="wait_min"
    )

    wait_per_batch_s: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds without progress for each unacked package; their sum applies if it exceeds wait_min.",
        ),
    ] = field(default=10.0, name="wait_per_batch")

    first_message_wait_s: Annotated[
        float, Meta(gt=0, description="Seconds that the gateway waits for the first message of a write.")
    ] = field(default=10.0, name="first_message_wait")

    max_calls: Annotated[
        int,
        Meta(
            ge=1,
            description="Maximum concurrent calls of each class (writes, unary reads, reads by id, listings), "
            "including waiting ones. One caller (a principal, or the peer's address) may use at most three quarters of "
            "this limit, of unary_reads, by_id_reads and listings, and less while others call.",
        ),
    ] = 1000

    max_unacked_entries: Annotated[int, Meta(ge=1, description="Maximum unacked entries of all writes.")] = 2_000_000

    max_unacked_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Maximum bytes of received messages and unacked packages of all writes. Above it no more "
            "messages are read.",
        ),
    ] = 256 * _MIB

    max_unacked_entries_per_call: Annotated[int, Meta(ge=1, description="Maximum unacked entries of one write.")] = (
        200_000
    )

    max_unacked_bytes_per_call: Annotated[
        int, Meta(ge=1, description="Maximum bytes of the unacked packages of one write.")
    ] = 32 * _MIB

    unary_reads: Annotated[
        int, Meta(ge=1, le=256, description="Maximum unary reads that query the storage at once; others wait.")
    ] = 10

    by_id_reads: Annotated[
        int, Meta(ge=1, le=256, description="Maximum reads by id (ContentGet, ...) that query the storage at once.")
    ] = 10

    listings: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Maximum listings (ContentFindAll, RelationGetAll, ...) that query the storage at once.",
        ),
    ] = 10

    streamed_read_wait_s: Annotated[
        float, Meta(ge=0, description="Seconds that a read by id or a listing may wait for its turn.")
    ] = field(default=5.0, name="streamed_read_wait")

    streamed_read_idle_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds that a read by id or a listing may wait for its client in total. Each "
            "streamed_read_rate bytes that the client reads add one second.",
        ),
    ] = field(default=60.0, name="streamed_read_idle")

    streamed_read_rate: Annotated[
        int,
        Meta(
            ge=1,
            description="Bytes of the answer that earn one second of streamed_read_idle. The gateway ends the read of "
            "a client that is always slower.",
        ),
    ] = 16 * 1024

    inspection_interval_s: Annotated[
        float, Meta(ge=1, description="Seconds between two inspections of the broker's queues and consumers.")
    ] = field(default=15.0, name="inspection_interval")

    grace_s: Annotated[float, Meta(ge=0, description="Seconds that calls in flight have to finish after SIGTERM.")] = (
        field(default=30.0, name="grace")
    )

    metrics_listen: Annotated[
        AddressOrOff | None,
        Meta(
            description="Host and port of /metrics, /healthz and /readyz, or `off`. Default: "
            f"{METRICS_LISTEN} if `listen` is a loopback address, else off.",
            extra={"off": True},
        ),
    ] = None

    statsd: Annotated[
        Address | None,
        Meta(
            description="Host and port of a statsd server for the duration of each call. "
            "Default: STATSD_HOST and STATSD_PORT (8125) of the environment.",
        ),
    ] = None

    @property
    def reflects(self) -> bool:
        """Whether the gateway serves reflection."""
        return self.is_local if self.reflection is None else self.reflection

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.listen.rpartition(":")[0])
