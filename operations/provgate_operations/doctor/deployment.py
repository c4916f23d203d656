"""The subjects of the checks: each section of the configuration, as far as it can be read."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.settings import PATH as RABBITMQ_PATH
from provgate_broker.settings import SECTION as RABBITMQ
from provgate_broker.settings import RabbitMqSettings, amqp_parameters, range_policy
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

S = TypeVar("S", bound=Settings)

CHECK: Final = "configuration"
GATEWAY_PATH: Final = f"provenance.{GATEWAY}"

_PACKAGES: Final = (
    *("provgate", "grpcio", "protobuf", "pika", "msgpack", "msgspec"),
    *("prometheus-client", "psycopg2-binary", "pymongo", "pygit2"),
)


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker of a configuration.

    Attributes:
        settings: the settings of the section.
        parameters: how to connect.
        policy: the range counts.
    """

    settings: RabbitMqSettings
    parameters: AmqpParameters
    policy: RangePolicy

    @property
    def existing(self) -> bool:
        """Whether the workers of another deployment consume from it."""
        return self.settings.topology == "existing"


@dataclass(slots=True)
class Deployment:
    """The parts that a configuration names. A part is None if it is not configured, or cannot be read.

    Attributes:
        broker: of `provenance.rabbitmq`.
        gateway: of `provenance.gateway`.
        client: of `provenance.storage`.
        databases: the local storages, not yet open, by the path of the section that configures them.
        findings: the findings about the configuration.
    """

    broker: Broker | None = None
    gateway: GatewaySettings | None = None
    client: GrpcSettings | None = None
    databases: dict[str, LocalStorage] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def read_deployment(context: click.Context, config: Path | None) -> Deployment:
    """Returns the deployment that flags, environment and file describe.

    Args:
        context: the context of a command with the options of `RabbitMqSettings` and `GatewaySettings`, below a command
            with those of `GrpcSettings`.
        config: the file; None for the one that the environment names.
    """
    deployment = Deployment()
    findings = deployment.findings
    try:
        document = ConfigDocument.load(config, profile=True)
    except ConfigurationError as error:
        findings.append(broken(CHECK, error.message, "no program starts", "correct the file"))
        return deployment
    findings += [warning(CHECK, text, "it has no effect", "remove the section") for text in document.warnings]
    rabbitmq = _section(document, RabbitMqSettings, RABBITMQ, RABBITMQ_PATH, context, findings)
    deployment.gateway = _section(document, GatewaySettings, GATEWAY, GATEWAY_PATH, context, findings)
    deployment.client = _section(document, GrpcSettings, STORAGE, STORAGE_PATH, context.find_root(), findings)
    if rabbitmq is not None:
        with _reporting(findings):
            deployment.broker = Broker(rabbitmq, amqp_parameters(rabbitmq), range_policy(rabbitmq))
    for path, storage_config in _storage_configs(rabbitmq, deployment.gateway).items():
        with _reporting(findings):
            deployment.databases[path] = local_storage(
                storage_config, path, read_connections=1, application_name="provgate-doctor"
            )
    return deployment


def version_finding() -> Finding:
    """Returns the versions of the installed packages. Packages of extras may be missing."""
    versions = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ok("versions", ", ".join(versions))


@contextmanager
def _reporting(findings: list[Finding]) -> Iterator[None]:
    """Turns a `ConfigurationError` of the block into a finding."""
    try:
        yield
    except ConfigurationError as error:
        why = "the programs that read this section do not start"
        findings.append(broken(CHECK, error.message, why, "correct the setting that the message names"))


def _section(
    document: ConfigDocument,
    settings: type[S],
    name: str,
    path: str,
    context: click.Context,
    findings: list[Finding],
) -> S | None:
    """Returns a section; None if it is not given, or wrong."""
    section: S | None = None
    with _reporting(findings):
        given = document.section(name)
        is_given = bool(given) or _has_options(context, settings)
        if settings is GrpcSettings and given.pop("cls", "grpc") != "grpc":
            raise ConfigurationError(f"{path}.cls: only `grpc` is reached over the network, by the gateway's address")
        if is_given:
            section = load_section(context, settings, given, path)
            findings.append(ok(CHECK, f"{path} can be read"))
        else:
            findings.append(skipped(CHECK, f"there is no {path}: what it configures is not checked"))
    return section


def _has_options(context: click.Context, settings: type[Settings]) -> bool:
    prefix = f"{settings.__name__.lower()}_"
    given = (ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE)
    return any(name.startswith(prefix) and context.get_parameter_source(name) in given for name in context.params)


def _storage_configs(rabbitmq: RabbitMqSettings | None, gateway: GatewaySettings | None) -> dict[str, dict[str, Any]]:
    """Returns the configurations of the databases that gateway and workers use, by the path of their section."""
    configs: dict[str, dict[str, Any]] = {}
    of_gateway = None if gateway is None else gateway.storage_config
    if rabbitmq is not None and rabbitmq.topology == "existing":
        return configs
    # Without a database of its own the gateway uses that of the workers.
    if rabbitmq is not None and (rabbitmq.storage_config or of_gateway is None):
        configs[RABBITMQ_PATH] = rabbitmq.storage_config
    if of_gateway is not None:
        configs[GATEWAY_PATH] = of_gateway
    return configs
