"""Typed settings: frozen structs, each field with its type, bounds, default and description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec

from provgate_runtime.addresses import OFF
from provgate_runtime.errors import ConfigurationError

T = TypeVar("T")

# What msgspec says of a key that is unknown or missing; its path names the mapping around it.
_KEY_AT_FAULT: Final = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`")


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
        return msgspec.convert(_as_written(values, into), into)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        key = _KEY_AT_FAULT.fullmatch(text)
        where = where.rstrip("`") + (f".{key[1]}" if key else "")
        if key and "unknown" in text:
            text += _suggestion(key[1], into)
        raise ConfigurationError(f"{path}{where}: {text}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _as_written(values: Mapping[str, Any], into: type[Any]) -> dict[str, Any]:
    """Returns `values` with `off` where YAML read it as false and the field (`extra={"off": True}`) takes the word."""
    hints = hints_of(into)
    taken = {
        field.encode_name
        for field in msgspec.structs.fields(into)
        if any((getattr(extra, "extra", None) or {}).get("off") for extra in _extras(hints[field.name]))
    }
    return {name: OFF if value is False and name in taken else value for name, value in values.items()}


def _suggestion(key: str, into: Any) -> str:
    known = dict(_known(into, ""))
    nearest = get_close_matches(key, known, n=1)
    return f"; did you mean `{known[nearest[0]]}`?" if nearest else ""


def _known(settings: Any, above: str) -> Iterator[tuple[str, str]]:
    """Yields the name of each setting and its path, those of the outer structs last: they are meant rather."""
    fields = msgspec.structs.fields(settings)
    for field in fields:
        for hint in (field.type, *get_args(field.type)):
            if isinstance(hint, type) and issubclass(hint, Settings):
                yield from _known(hint, f"{above}{field.encode_name}.")
    for field in fields:
        yield field.encode_name, f"{above}{field.encode_name}"


def _extras(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def hints_of(settings: Any) -> Mapping[str, Any]:
    """Returns the types of the fields of a struct, with their `Meta`. To evaluate them takes a millisecond and more."""
    return _evaluated(settings)


@cache
def _evaluated(settings: Any) -> Mapping[str, Any]:
    return get_type_hints(settings, include_extras=True)
