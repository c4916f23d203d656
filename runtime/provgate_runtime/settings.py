"""Typed settings: frozen structs, whose fields have a type, bounds, a default and a description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_type_hints

import click
import msgspec

from provgate_runtime.addresses import OFF

T = TypeVar("T", bound=msgspec.Struct)

# msgspec's message of an unknown or missing key; its path names the mapping around the key.
_WRONG_KEY: Final = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`")


class ConfigurationError(click.ClickException):
    """A setting is missing, unknown, of the wrong type or impossible.

    A command that raises it exits with 2 and prints the text. The text starts with the setting's path in the
    configuration file (`provenance.rabbitmq.prefetch_count`) or its flag, and never holds a secret's value.
    """

    exit_code = 2


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all settings. Fields are `Annotated` with a `msgspec.Meta` that describes and bounds them."""


def convert(values: Mapping[str, Any], into: type[T], path: str) -> T:
    """Returns `values` as an `into`.

    Args:
        values: the values as YAML gives them.
        into: a subclass of `Settings`.
        path: the place of the values in the configuration, for messages.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value has the wrong type or is out of bounds.
    """
    hints = hints_of(into)
    # YAML reads `off` as false; a field with `extra={"off": True}` means the word.
    may_be_off = {
        field.encode_name
        for field in msgspec.structs.fields(into)
        if any((getattr(extra, "extra", None) or {}).get("off") for extra in _metadata(hints[field.name]))
    }
    written = {name: OFF if value is False and name in may_be_off else value for name, value in values.items()}
    try:
        return msgspec.convert(written, into)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        key = _WRONG_KEY.fullmatch(text)
        where = where.rstrip("`") + (f".{key[1]}" if key else "")
        if key and "unknown" in text:
            known = dict(_paths_by_name(into, ""))
            nearest = get_close_matches(key[1], known, n=1)
            text += f"; did you mean `{known[nearest[0]]}`?" if nearest else ""
        raise ConfigurationError(f"{path}{where}: {text}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


@cache
def hints_of(settings: type[msgspec.Struct]) -> Mapping[str, Any]:
    """Returns the types of the fields of a struct, with their `Meta`. To evaluate them takes a millisecond or more."""
    return get_type_hints(settings, include_extras=True)


def _metadata(hint: object) -> tuple[object, ...]:
    return getattr(hint, "__metadata__", ())


def _paths_by_name(settings: type[msgspec.Struct], above: str) -> Iterator[tuple[str, str]]:
    """Yields the name and path of each setting. Those of the outer struct come last, so that they win in a dict."""
    fields = msgspec.structs.fields(settings)
    for field in fields:
        for hint in (field.type, *get_args(field.type)):
            if isinstance(hint, type) and issubclass(hint, Settings):
                yield from _paths_by_name(hint, f"{above}{field.encode_name}.")
    for field in fields:
        yield field.encode_name, f"{above}{field.encode_name}"
