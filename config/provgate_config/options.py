"""Flags and environment variables for settings, made of the settings' own types.

Every field that has a simple type becomes an option of the command, with the field's description as its help and an
environment variable beside it, so that `--help` lists all there is to set and nothing is described twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click
import msgspec
from click.core import ParameterSource

from provgate_config.document import read_secret
from provgate_config.settings import Settings, convert

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Settings)

# The settings of a simple type that may hold a secret.
_WITH_FILE = ("url", "token")

_SIMPLE = {str: click.STRING, int: click.INT, float: click.FLOAT, bool: click.BOOL}


def setting_options(settings: type[Settings], env_prefix: str, only: Collection[str] | None = None) -> Callable[[F], F]:
    """Returns a decorator that gives a click command an option for each simple field of `settings`.

    A field `batch_size` becomes `--batch-size` and `<env_prefix>_BATCH_SIZE`. The extra data of a field's `Meta` may
    name another flag (`flag`) or environment variable (`env`), or keep the field out of the command line
    (`option=False`). A field named `url` or `token` also gets a flag with `-file` at its end, to keep a secret out of
    process lists.

    Args:
        settings: the type of the settings.
        env_prefix: what the environment variables start with.
        only: the fields, by their names in the file, that become options; all where not given.
    """

    def decorate(command: F) -> F:
        for field in reversed(msgspec.structs.fields(settings)):
            if only is None or field.encode_name in only:
                for option in _options_of(settings, field, env_prefix):
                    command = option(command)
        return command

    return decorate


def load_section(context: click.Context, settings: type[S], section: dict[str, Any], path: str) -> S:
    """Returns the settings of a section, with what flags and environment variables gave laid over it.

    Args:
        context: of a command that `setting_options` decorated for `settings`.
        settings: the type of the section.
        section: as the configuration file gives it.
        path: the section's path, for messages.

    Raises:
        ConfigurationError: as `convert` does.
    """
    merged = dict(section)
    for source in (ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE):
        for field in msgspec.structs.fields(settings):
            name = field.encode_name
            parameter = _parameter(settings, name)
            if context.get_parameter_source(f"{parameter}_file") is source:
                merged[name] = read_secret(context.params[f"{parameter}_file"], f"{path}.{name}_file")
            if context.get_parameter_source(parameter) is source:
                merged[name] = context.params[parameter]
    return convert(merged, settings, path)


def _parameter(settings: type[Settings], name: str) -> str:
    # One command may have options of two types of settings, with fields of the same name.
    return f"{settings.__name__}_{name}".lower()


def _options_of(settings: type[Settings], field: msgspec.structs.FieldInfo, env_prefix: str) -> list[Callable[[F], F]]:
    simple, meta = _simple_type(get_type_hints(settings, include_extras=True)[field.name])
    extra = (meta.extra if meta else None) or {}
    if simple is None or extra.get("option") is False:
        return []
    name = field.encode_name
    flag = f"--{extra.get('flag', name.replace('_', '-'))}"
    parameter = _parameter(settings, name)
    variable = extra.get("env", f"{env_prefix}_{name.upper()}")
    description = _help(field, meta)
    option: dict[str, Any] = {"envvar": variable, "show_envvar": True, "help": description}
    if simple is click.BOOL:
        made = [click.option(f"{flag}/--no-{flag[2:]}", parameter, default=None, **option)]
    else:
        made = [click.option(flag, parameter, type=simple, default=None, **option)]
    if name in _WITH_FILE:
        made.append(
            click.option(
                f"{flag}-file",
                f"{parameter}_file",
                envvar=f"{variable}_FILE",
                show_envvar=True,
                help=f"A file that holds what {flag} would say.",
            )
        )
    return made


def _help(field: msgspec.structs.FieldInfo, meta: msgspec.Meta | None) -> str:
    description = (meta.description if meta else None) or ""
    if field.default in (msgspec.NODEFAULT, None):
        return description
    return f"{description} [default: {field.default}]"


def _simple_type(hint: Any) -> tuple[click.ParamType[Any] | None, msgspec.Meta | None]:
    """Returns the click type of a field, None where it is not simple, and the field's `Meta`."""
    meta = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        meta = next((extra for extra in extras if isinstance(extra, msgspec.Meta)), None)
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        hint = members[0] if len(members) == 1 else None
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return click.Choice([str(value) for value in get_args(hint)]), meta
    return _SIMPLE.get(hint), meta
