"""What there is to check: the sections of the configuration, each as far as it can be read."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.configured import PATH as RABBITMQ_PATH
from provgate_broker.configured import amqp_parameters, range_policy
from provgate_broker.settings import SECTION as RABBITMQ
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import RangePolicy
from provgate_client.settings import SECTION as STORAGE
from provgate_client.settings import SECTION_PATH as STORAGE_PATH
from provgate_client.settings import GrpcSettings
from provgate_gateway.settings import SECTION as GATEWAY
from provgate_gateway.settings import GatewaySettings
from provgate_operations.doctor.findings import Finding, broken, ok, skipped, warning
from provgate_runtime import ConfigDocument, ConfigurationError, Settings, load_section
from provgate_storage.database.local import LocalStorage
from provgate_storage.registry import local_storage

_PACKAGES: Final = (
    "provgate",
    "grpcio",
    "protobuf",
    "pika",
    "msgpack",
    "msgspec",
    "prometheus-client",
    "psycopg2-binary",
    "pymongo",
    "pygit2",
)


def version_findings() -> Iterator[Finding]:
    """Yields what is installed beside this program; what is not is left out: the extras are optional."""
    installed = [f"Python {platform.python_version()}", *filter(None, map(_installed, _PACKAGES))]
    yield ok("versions", ", ".join(installed))


def _installed(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


S = TypeVar("S", bound=Settings)
T = TypeVar("T")

CHECK: Final = "configuration"
GATEWAY_PATH: Final = f"provenance.{GATEWAY}"

_WHY: Final = "the programs that read this section do not start"


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker of a configuration.

    Attributes:
        settings: of the section.
        parameters: where it is.
        policy: the range counts.
    """

    settings: RabbitMqSettings
    parameters: AmqpParameters
    policy: RangePolicy

    @property
    def existing(self) -> bool:
        """Whether another deployment's workers are behind it."""
        return self.settings.topology == "existing"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a configuration names. What is None is not named, or cannot be read.

    Attributes:
        broker: of `provenance.rabbitmq`.
        gateway: of `provenance.gateway`.
        client: of `provenance.storage`.
        databases: the local storages, not yet open, by the path of the section that configures them.
        findings: what was found while it was read.
    """

    broker: Broker | None
    gateway: GatewaySettings | None
    client: GrpcSettings | None
    databases: dict[str, LocalStorage]
    findings: list[Finding]


def read_deployment(context: click.Context, config: Path | None) -> Deployment:
    """Returns what flags, environment and file name.

    Args:
        context: of a command that has the options of `RabbitMqSettings` and `GatewaySettings`, below one that has those
            of `GrpcSettings`.
        config: the file; None for the one that the environment names.
    """
    findings: list[Finding] = []
    try:
        document = ConfigDocument.load(config, profile=True)
    except ConfigurationError as error:
        findings.append(broken(CHECK, error.message, "no program starts", "correct the file"))
        return Deployment(None, None, None, {}, findings)
    findings += [warning(CHECK, text, "it has no effect", "remove the section") for text in document.warnings]
    reader = _Reader(context, document, findings)
    rabbitmq = reader.section(RabbitMqSettings, RABBITMQ, RABBITMQ_PATH, context)
    gateway = reader.section(GatewaySettings, GATEWAY, GATEWAY_PATH, context)
    client = reader.section(GrpcSettings, STORAGE, STORAGE_PATH, context.find_root())
    broker = None if rabbitmq is None else reader.attempt(lambda: _broker(rabbitmq))
    databases = _databases(reader, rabbitmq, gateway)
    return Deployment(broker, gateway, client, databases, findings)


class _Reader:
    """Reads sections, and notes what is wrong with them."""

    def __init__(self, context: click.Context, document: ConfigDocument, findings: list[Finding]) -> None:
        self._context = context
        self._document = document
        self.findings = findings

    def section(self, settings: type[S], name: str, path: str, context: click.Context) -> S | None:
        """Returns a section; None where nothing names it, or it is wrong."""

        def load() -> S | None:
            given = self._document.section(name)
            if not given and not _has_options(context, settings):
                self.findings.append(skipped(CHECK, f"there is no {path}: what it configures is not checked"))
                return None
            if settings is GrpcSettings and given.pop("cls", "grpc") != "grpc":
                raise ConfigurationError(
                    f"{path}.cls: only `grpc` is reached over the network, by the gateway's address"
                )
            return load_section(context, settings, given, path)

        section = self.attempt(load)
        if section is not None:
            self.findings.append(ok(CHECK, f"{path} can be read"))
        return section

    def attempt(self, load: Callable[[], T | None]) -> T | None:
        """Returns what is loaded; None, and a finding, where it cannot be."""
        try:
            return load()
        except ConfigurationError as error:
            self.findings.append(broken(CHECK, error.message, _WHY, "correct the setting that the message names"))
            return None


def _has_options(context: click.Context, settings: type[Settings]) -> bool:
    prefix = f"{settings.__name__.lower()}_"
    given = (ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE)
    return any(name.startswith(prefix) and context.get_parameter_source(name) in given for name in context.params)


def _broker(settings: RabbitMqSettings) -> Broker:
    return Broker(settings, amqp_parameters(settings), range_policy(settings))


def _databases(
    reader: _Reader, rabbitmq: RabbitMqSettings | None, gateway: GatewaySettings | None
) -> dict[str, LocalStorage]:
    if rabbitmq is not None and rabbitmq.topology == "existing":
        return {}
    configured: dict[str, dict[str, Any]] = {}
    if rabbitmq is not None and (rabbitmq.storage_config or gateway is None or gateway.storage_config is None):
        configured[RABBITMQ_PATH] = rabbitmq.storage_config
    if gateway is not None and gateway.storage_config is not None:
        configured[GATEWAY_PATH] = gateway.storage_config
    opened = {path: reader.attempt(partial(_storage, config, path)) for path, config in configured.items()}
    return {path: storage for path, storage in opened.items() if storage is not None}


def _storage(config: dict[str, Any], path: str) -> LocalStorage:
    return local_storage(config, path, read_connections=1, application_name="provgate-doctor")
