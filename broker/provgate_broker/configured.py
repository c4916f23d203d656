"""The broker and the ranges that a configuration names, for gateway and workers alike."""

from __future__ import annotations

from typing import Final

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.amqp.tls import TlsFiles
from provgate_broker.settings import SECTION, RabbitMqSettings
from provgate_broker.topology.policy import RangePolicy
from provgate_runtime import ConfigurationError

PATH: Final = f"provenance.{SECTION}"
"""The path of the section in the configuration file."""


def amqp_parameters(settings: RabbitMqSettings) -> AmqpParameters:
    """Returns where the broker is. Raises `ConfigurationError`, whose text never quotes the URL."""
    tls = TlsFiles(settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
    try:
        parameters = AmqpParameters(settings.url, settings.heartbeat_s, tls)
        if tls:
            # What cannot be used is told at the start; renewed files are read at each connection.
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
