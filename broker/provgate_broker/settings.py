"""The section `provenance.rabbitmq` of the configuration: the broker, and the workers behind it.

The gateway reads the same section, so that both ends of a queue agree on the topology.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field

from provgate_runtime import Settings
from provgate_runtime.addresses import Address, AddressOrOff

SECTION: Final = "rabbitmq"

METRICS_LISTEN: Final = "127.0.0.1:9465"

BROKER_FIELDS: Final = ("url", "tls_ca_file", "tls_cert_file", "tls_key_file")
"""What says how to reach the broker, for programs that need no more of the section."""

_MIB = 1024 * 1024


class RabbitMqSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the broker, what its topology is, and how the workers work.

    Durations are in seconds and sizes in bytes; what the file calls `standby_delay` is `standby_delay_s` here.
    """

    url: Annotated[
        str,
        Meta(
            description="The broker: amqp:// or amqps://, with user, password and virtual host.",
            extra={"env": "PROVGATE_AMQP_URL", "flag": "amqp-url"},
        ),
    ] = "amqp://guest:guest@localhost:5672/%2f"

    tls_ca_file: Annotated[
        str | None,
        Meta(
            description="For amqps://: a PEM file with the authorities that the broker's certificate must come from; "
            "the system's where not given. Files are read again for each connection.",
            extra={"env": "PROVGATE_AMQP_TLS_CA_FILE", "flag": "amqp-tls-ca-file"},
        ),
    ] = None

    tls_cert_file: Annotated[
        str | None,
        Meta(
            description="For amqps://: a PEM file with the certificate chain to show to the broker.",
            extra={"env": "PROVGATE_AMQP_TLS_CERT_FILE", "flag": "amqp-tls-cert-file"},
        ),
    ] = None

    tls_key_file: Annotated[
        str | None,
        Meta(
            description="For amqps://: a PEM file with the private key of tls_cert_file, without a passphrase.",
            extra={"env": "PROVGATE_AMQP_TLS_KEY_FILE", "flag": "amqp-tls-key-file"},
        ),
    ] = None

    storage_config: Annotated[
        dict[str, Any],
        Meta(description="The local storage: `cls` and what that class takes.", extra={"option": False}),
    ] = field(default_factory=dict)

    topology: Annotated[
        Literal["own", "existing"],
        Meta(
            description="`own`: exchanges and queues are declared by set-up. `existing`: another deployment's workers "
            "are behind the broker; nothing is declared, and reads are not available.",
            extra={"env": "PROVGATE_TOPOLOGY"},
        ),
    ] = "own"

    ranges: Annotated[
        dict[str, int],
        Meta(
            description="The range count of an exchange, by its name: a power of two, 1 to 256; 16 where not given.",
            extra={"option": False},
        ),
    ] = field(default_factory=dict)

    queue_max_length_bytes: Annotated[
        int, Meta(ge=_MIB, description="How much a work queue holds before it refuses more.")
    ] = 1024 * _MIB

    package_max_bytes: Annotated[
        int,
        Meta(
            ge=2 * _MIB,
            description="How large the body of a package may be: a larger one becomes a dead letter before it is "
            "decoded. A gateway's have at most 1 MiB.",
        ),
    ] = 8 * _MIB

    heartbeat_s: Annotated[int, Meta(ge=1, description="Seconds between heartbeats on a connection.")] = field(
        default=10, name="heartbeat"
    )

    batch_size: Annotated[
        int,
        Meta(
            ge=1,
            description="How many waiting entries a range worker stores in one call. A floor: where it is "
            "below 10,000, 10,000.",
        ),
    ] = 10_000

    prefetch_count: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="How many packages of each queue a worker holds. A floor: where it is below 10, 10.",
        ),
    ] = 10

    processes: Annotated[
        int, Meta(ge=1, le=256, description="How many operating-system processes host the range workers.")
    ] = 2

    storage_threads: Annotated[
        int, Meta(ge=1, le=64, description="How many threads, each with a database connection, write in a process.")
    ] = 2

    max_in_hand_bytes: Annotated[
        int, Meta(ge=_MIB, description="How many bytes of packages a worker program holds at most.")
    ] = 256 * _MIB

    preferred: Annotated[
        list[str],
        Meta(
            description="The ranges that are taken at once, each `<exchange>` or `<exchange>.<first>-<last>` with "
            "hexadecimal ends; the others are taken after standby_delay. All where empty.",
            extra={"option": False},
        ),
    ] = field(default_factory=list)

    standby_delay_s: Annotated[
        float, Meta(ge=0, description="Seconds before the ranges that are not preferred are taken too.")
    ] = field(default=30.0, name="standby_delay")

    pause_limit_s: Annotated[
        float, Meta(ge=0, description="Seconds of trouble with the storage before a worker gives its ranges up.")
    ] = field(default=60.0, name="pause_limit")

    poison_after: Annotated[
        int, Meta(ge=1, description="How often a package is redelivered before it is handled alone.")
    ] = 10

    metrics_listen: Annotated[
        AddressOrOff | None,
        Meta(
            description="Host and port where a worker program serves /metrics, /healthz and /readyz over HTTP, or "
            f"`off`. Where not given, {METRICS_LISTEN}.",
            extra={"off": True},
        ),
    ] = None

    statsd: Annotated[
        Address | None,
        Meta(
            description="Host and port of a statsd server that is told how long each storage call of a worker took. "
            "Where not given, those of the environment variables STATSD_HOST and STATSD_PORT (8125), if there are any.",
        ),
    ] = None

    def __repr__(self) -> str:
        # `url` and `storage_config` may hold passwords.
        return f"{type(self).__name__}(topology={self.topology!r}, ...)"
