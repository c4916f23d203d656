"""Finds the storage that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from provgate_runtime import ConfigurationError
from provgate_storage.database.local import LocalStorage
from provgate_storage.interface import ProvenanceStorageInterface

ENTRY_POINT_GROUP: Final = "provgate.storage"

RABBITMQ_INSTEAD: Final = (
    "RabbitMQ is no storage: set provenance.storage to {cls: grpc, url: HOST:PORT}, the address of the gateway, and"
    " move the settings that are here to provenance.rabbitmq, which provgate-gateway and provgate-workers read"
)
"""The error text for a configuration that names the storage `rabbitmq`, as older ones do."""

# Existing configurations call the database of the workers "local".
_ALIASES: Final = {"local": "postgresql"}


class UnknownStorageError(ValueError):
    """No storage of that name is installed."""


def get_provenance_storage(cls: str, **kwargs: Any) -> ProvenanceStorageInterface:
    """Returns the storage of a name, not yet open.

    Args:
        cls: "postgresql" or its old name "local", "mongodb", "grpc", or a name that another distribution registers as
            an entry point of the group `provgate.storage`. Only the named one is imported.
        **kwargs: the arguments of the class.

    Raises:
        UnknownStorageError: there is no such name, or what it needs is not installed.
        ConfigurationError: the class does not take these arguments.
    """
    storage: ProvenanceStorageInterface = storage_class(cls)(**kwargs)
    return storage


def storage_class(cls: str) -> type[Any]:
    """Returns the class behind a name, as `get_provenance_storage` takes it. Raises `UnknownStorageError`."""
    if cls == "rabbitmq":
        raise UnknownStorageError(RABBITMQ_INSTEAD)
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    point = found.get(_ALIASES.get(cls, cls))
    if point is None:
        raise UnknownStorageError(f"no storage is called {cls!r}; there are {', '.join(sorted(found))}")
    try:
        found_class: type[Any] = point.load()
    except ModuleNotFoundError as error:
        raise UnknownStorageError(f"{error.name} is missing: pip install 'provgate[{point.name}]'") from error
    return found_class


def local_storage(storage_config: Mapping[str, Any], section: str, **defaults: Any) -> LocalStorage:
    """Returns the local storage of a configuration, not yet open.

    Args:
        storage_config: `cls` and the arguments of that class.
        section: the path of the section that holds it, for messages.
        **defaults: the arguments that the program sets if the configuration does not.

    Raises:
        ConfigurationError: there is no such storage, it is not a local one, or it does not take these arguments.
    """
    settings = dict(storage_config)
    name = settings.pop("cls", None)
    path = f"{section}.storage_config.cls"
    if not isinstance(name, str):
        raise ConfigurationError(f"{path}: missing; it names the storage, for example `postgresql`")
    try:
        found = storage_class(name)
    except UnknownStorageError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not issubclass(found, LocalStorage):
        raise ConfigurationError(f"{path}: {name} is not a `LocalStorage`: name the database that the workers write to")
    try:
        return found(**{**defaults, **settings})
    except ConfigurationError as error:
        # The path in it starts with `storage_config`: a storage does not know its section.
        raise ConfigurationError(f"{section}.{error.message}") from error
