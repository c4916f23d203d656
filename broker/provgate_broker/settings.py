"""The section `provenance.rabbitmq` of the configuration: broker, topology and workers.

Gateway and workers read the same section, so that they agree on the topology.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.amqp.tls import TlsFiles
from provgate_broker.topology.policy import RangePolicy
from provgate_runtime import ConfigurationError, Settings
from provgate_runtime.addresses import Address, AddressOrOff

SECTION: Final = "rabbitmq"

PATH: Final = f"provenance.{SECTION}"
"""The path of the section in the configuration file."""

METRICS_LISTEN: Final = "127.0.0.1:9465"

BROKER_FIELDS: Final = ("url", "tls_ca_file", "tls_cert_file", "tls_key_file")
"""The fields that name the broker, for programs that need no others of the section."""

_MIB = 1024 * 1024


class RabbitMqSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker, its topology, and the limits of the workers.

    Durations are in seconds and sizes in bytes. The file's `standby_delay` is the field `standby_delay_s`.
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
            description="For amqps://: a PEM file with the authorities that must have issued the broker's certificate; "
            "default: the system's. Each connection reads the file again.",
            extra={"env": "PROVGATE_AMQP_TLS_CA_FILE", "flag": "amqp-tls-ca-file"},
        ),
    ] = None

    tls_cert_file: Annotated[
        str | None,
        Meta(
            description="For amqps://: a PEM file with the client certificate and its chain.",
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
        Meta(description="The local storage: `cls`, and the settings of that class.", extra={"option": False}),
    ] = field(default_factory=dict)

    topology: Annotated[
        Literal["own", "existing"],
        Meta(
            description="`own`: set-up declares exchanges and queues. `existing`: the broker belongs to another "
            "deployment's workers; nothing is declared, and reads are not available.",
            extra={"env": "PROVGATE_TOPOLOGY"},
        ),
    ] = "own"

    ranges: Annotated[
        dict[str, int],
        Meta(
            description="The range count of each exchange, by name: a power of two, 1 to 256; default: 16.",
            extra={"option": False},
        ),
    ] = field(default_factory=dict)

    queue_max_length_bytes: Annotated[
        int, Meta(ge=_MIB, description="Maximum size of a work queue. A full queue refuses packages.")
    ] = 1024 * _MIB

    package_max_bytes: Annotated[
        int,
        Meta(
            ge=2 * _MIB,
            description="Maximum size of a package. Workers make a larger one a dead letter without decoding it. A "
            "gateway's packages have at most 1 MiB.",
        ),
    ] = 8 * _MIB

    heartbeat_s: Annotated[int, Meta(ge=1, description="Seconds between heartbeats on a connection.")] = field(
        default=10, name="heartbeat"
    )

    batch_size: Annotated[
        int,
        Meta(
            ge=1,
            description="Entries that a range worker stores in one call. Values below 10,000 mean 10,000.",
        ),
    ] = 10_000

    prefetch_count: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="Prefetch count of each queue. Values below 10 mean 10.",
        ),
    ] = 10

    processes: Annotated[int, Meta(ge=1, le=256, description="Operating-system processes that run range workers.")] = 2

    storage_threads: Annotated[
        int, Meta(ge=1, le=64, description="Writing threads of each process, each with a database connection.")
    ] = 2

    max_in_hand_bytes: Annotated[
        int, Meta(ge=_MIB, description="Maximum bytes of packages that a worker program holds.")
    ] = 256 * _MIB

    preferred: Annotated[
        list[str],
        Meta(
            description="Ranges that this program consumes at once: `<exchange>` or `<exchange>.<first>-<last>` in "
            "hexadecimal. It consumes the others after standby_delay. Default: all.",
            extra={"option": False},
        ),
    ] = field(default_factory=list)

    standby_delay_s: Annotated[
        float, Meta(ge=0, description="Seconds before this program consumes the ranges that are not preferred.")
    ] = field(default=30.0, name="standby_delay")

    pause_limit_s: Annotated[
        float, Meta(ge=0, description="Seconds of storage failure before a worker releases its ranges.")
    ] = field(default=60.0, name="pause_limit")

    poison_after: Annotated[int, Meta(ge=1, description="Redeliveries of a package before it is handled alone.")] = 10

    metrics_listen: Annotated[
        AddressOrOff | None,
        Meta(
            description="Host and port of /metrics, /healthz and /readyz of a worker program, or `off`; "
            f"default: {METRICS_LISTEN}.",
            extra={"off": True},
        ),
    ] = None

    statsd: Annotated[
        Address | None,
        Meta(
            description="Host and port of a statsd server for the duration of each storage call. "
            "Default: STATSD_HOST and STATSD_PORT (8125) of the environment.",
        ),
    ] = None

    def __repr__(self) -> str:
        # `url` and `storage_config` may hold passwords.
        return f"{type(self).__name__}(topology={self.topology!r}, ...)"


def amqp_parameters(settings: RabbitMqSettings) -> AmqpParameters:
    """Returns the address of the broker, with its TLS files.

    Raises:
        ConfigurationError: the URL or a TLS file is invalid. The text never quotes the URL.
    """
    tls = TlsFiles(settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
    try:
        parameters = AmqpParameters(settings.url, settings.heartbeat_s, tls)
        if tls:
            # Reports invalid files at the start. Each connection reads them again.
            tls.context()
    except ValueError as error:
        raise ConfigurationError(f"{PATH}.url: {error}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{PATH}.{error.message}") from error
    return parameters


def range_policy(settings: RabbitMqSettings) -> RangePolicy:
    """Returns the range counts. Raises `ConfigurationError`."""
    try:
        return RangePolicy.of(settings.ranges)
    except ValueError as error:
        raise ConfigurationError(f"{PATH}.ranges.{error}") from error
