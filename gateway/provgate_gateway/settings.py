"""The section `provenance.gateway` of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, field

from provgate_gateway.access.roles import Role
from provgate_runtime import Settings
from provgate_runtime.addresses import Address, AddressOrOff, is_loopback

_Count = Annotated[int, Meta(ge=1)]


class LimitSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each principal may use at once, admins excepted; no limit where one is not given."""

    max_calls: Annotated[_Count | None, Meta(description="The most calls of one principal at once.")] = None

    max_unacked_entries: Annotated[
        _Count | None, Meta(description="The most entries that are not acked, of all writes of one principal.")
    ] = None

    entries_per_second: Annotated[
        _Count | None, Meta(description="How many entries of one principal are taken a second.")
    ] = None


class AccessSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call. Everybody may, and do everything, where neither tokens nor certificates are given."""

    tokens_file: Annotated[
        str | None,
        Meta(description="A file of lines `<name> <role> <SHA-256 of the token in hex>`; `provgate token` makes them."),
    ] = None

    certificates: Annotated[
        dict[str, Role],
        Meta(
            description="The role (reader, writer or admin) of each name of client certificates: a subject alternative "
            "name, or the common name. They need tls_client_ca."
        ),
    ] = field(default_factory=dict)

    limits: Annotated[LimitSettings, Meta(description="What each principal may use.")] = field(
        default_factory=LimitSettings
    )

    def __post_init__(self) -> None:
        if not self.is_controlled and self.limits != LimitSettings():
            raise ValueError("limits: they are for each principal, and need tokens_file or certificates")

    @property
    def is_controlled(self) -> bool:
        """Whether the gateway asks who calls."""
        return self.tokens_file is not None or bool(self.certificates)


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

    first_message_wait_s: Annotated[
        float, Meta(gt=0, description="Seconds that a write may send nothing at first, before it is ended.")
    ] = field(default=10.0, name="first_message_wait")

    max_calls: Annotated[
        int,
        Meta(
            ge=1,
            description="The most calls at once of each class (writes, unary reads, reads by id, listings), those that "
            "wait included. Of this bound and of those below, one caller (principal, or else the address of the peer) "
            "has three quarters at most, and less while others call.",
        ),
    ] = 1000

    max_unacked_entries: Annotated[
        int, Meta(ge=1, description="The most entries that are not acked, of all writes together.")
    ] = 2_000_000

    max_unacked_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="The most bytes of messages that are read and of packages that are not acked, of all writes "
            "together; the others are not read.",
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
    ] = 10

    by_id_reads: Annotated[
        int, Meta(ge=1, le=256, description="How many reads by id (ContentGet, ...) ask the storage at once.")
    ] = 10

    listings: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="How many listings (ContentFindAll, RelationGetAll, ...) ask the storage at once.",
        ),
    ] = 10

    streamed_read_wait_s: Annotated[
        float, Meta(ge=0, description="Seconds that a read by id or a listing waits for its turn when as many run.")
    ] = field(default=5.0, name="streamed_read_wait")

    streamed_read_idle_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Seconds that a read by id or a listing waits for its client in all, beside what the client "
            "earns by streamed_read_rate; then it is ended.",
        ),
    ] = field(default=60.0, name="streamed_read_idle")

    streamed_read_rate: Annotated[
        int,
        Meta(
            ge=1,
            description="How many bytes of the answer a client takes to earn one second of streamed_read_idle again: "
            "who always reads more slowly loses the read.",
        ),
    ] = 16 * 1024

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
