"""The local storage that a configuration names, for the programs that stand before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provgate_config import ConfigurationError
from provgate_storage.local import LocalStorage
from provgate_storage.registry import UnknownStorageError, storage_class


def local_storage(storage_config: Mapping[str, Any], section: str, **defaults: Any) -> LocalStorage:
    """Returns the local storage of a configuration, not yet open.

    Args:
        storage_config: `cls` and what that class takes.
        section: the path of the section that holds it, for messages.
        **defaults: what the program sets where the configuration does not.

    Raises:
        ConfigurationError: there is no such storage, it is not a local one, or it does not take these settings.
    """
    settings = dict(storage_config)
    name = settings.pop("cls", None)
    path = f"{section}.storage_config"
    if not isinstance(name, str):
        raise ConfigurationError(f"{path}.cls: missing; it names the storage, for example `postgresql`")
    try:
        found = storage_class(name)
    except UnknownStorageError as error:
        raise ConfigurationError(f"{path}.cls: {error}") from error
    if not issubclass(found, LocalStorage):
        raise ConfigurationError(
            f"{path}.cls: {name} holds no data itself: name the database that the workers write to"
        )
    try:
        storage: LocalStorage = found(**{**defaults, **settings})
    except ConfigurationError as error:
        # It starts with `storage_config`: a storage does not know in which section it is configured.
        raise ConfigurationError(f"{section}.{error.message}") from error
    return storage
