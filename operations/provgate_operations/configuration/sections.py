"""The sections of the configuration, each with its type and the program whose options lie over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from provgate_broker.settings import SECTION as RABBITMQ
from provgate_broker.settings import RabbitMqSettings
from provgate_client.adapter.settings import SECTION as STORAGE
from provgate_client.adapter.settings import GrpcSettings
from provgate_config import Settings
from provgate_config.document import ROOT
from provgate_gateway.settings import SECTION as GATEWAY
from provgate_gateway.settings import GatewaySettings
from provgate_storage.registry import UnknownStorageError, storage_class

STORAGE_CONFIG: Final = "storage_config"
"""The settings of a local storage: `cls`, and the fields of that class's own settings."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section.

    Attributes:
        name: of the section.
        settings: its type.
        program: whose options lie over it.
        env_prefix: what their environment variables start with.
    """

    name: str
    settings: type[Settings]
    program: str
    env_prefix: str

    @property
    def path(self) -> str:
        """The path of the section in the file."""
        return f"{ROOT}.{self.name}"


SECTIONS: Final = (
    Section(STORAGE, GrpcSettings, "provgate", "PROVGATE"),
    Section(RABBITMQ, RabbitMqSettings, "provgate-workers", "PROVGATE_WORKERS"),
    Section(GATEWAY, GatewaySettings, "provgate-gateway", "PROVGATE_GATEWAY"),
)


def settings_of_storage(cls: Any) -> type[Settings] | None:
    """Returns the type of the settings of a storage class; None where it has none or is not installed."""
    try:
        found = getattr(storage_class(cls), "settings_type", None) if isinstance(cls, str) else None
    except UnknownStorageError:
        return None
    return found if isinstance(found, type) and issubclass(found, Settings) else None
