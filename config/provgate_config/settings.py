"""Typed settings: frozen structs, each field with its type, bounds, default and description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from provgate_config.errors import ConfigurationError

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all settings. Fields are `Annotated` with a `msgspec.Meta` that describes and bounds them."""


def convert(values: Mapping[str, Any], into: type[T], path: str) -> T:
    """Returns `values` as an `into`.

    Args:
        values: as YAML gives them.
        into: a subclass of `Settings`.
        path: where the values stand in the configuration, for messages.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value has the wrong type or is out of bounds.
    """
    try:
        return msgspec.convert(dict(values), into)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        raise ConfigurationError(f"{path}{where.rstrip('`')}: {text}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
