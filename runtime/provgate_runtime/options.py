"""Flags and environment variables for settings, made of the settings' own types.

Every field that has a simple type becomes an option of the command, with the field's description as its help and an
environment variable beside it, so that `--help` lists all there is to set and nothing is described twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
import msgspec
from click.core import ParameterSource

from provgate_runtime.document import Source, SourceKind, read_secret
from provgate_runtime.settings import Settings, convert, hints_of

# It looks like a hyphen, and lines are not broken at it.
_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class HelpFormatter(click.HelpFormatter):
    """Breaks lines at spaces alone, where click breaks them at hyphens too, and in the middle of long words."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Writes the line of the usage."""
        super().write_usage(prog.replace("-", _HYPHEN), args.replace("-", _HYPHEN), prefix)

    def write_text(self, text: str) -> None:
        """Writes a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Writes terms and what they mean, the terms in a column that leaves room for the longest word beside it."""
        kept = [(term, text.replace("-", _HYPHEN)) for term, text in rows]
        longest = max((len(word) for _, text in kept for word in text.split()), default=0)
        super().write_dl(kept, max(0, min(col_max, self.width - longest - col_spacing - 2)), col_spacing)

    def getvalue(self) -> str:
        """Returns what was written."""
        return super().getvalue().replace(_HYPHEN, "-")


def keep_names_whole() -> None:
    """Makes the help texts of this program's commands keep names whole; for the module of its command line."""
    click.Context.formatter_class = HelpFormatter


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
    for given in _given(context, settings):
        value = context.params[given.parameter]
        merged[given.name] = read_secret(value, f"{path}.{given.name}_file") if given.is_file else value
    return convert(merged, settings, path)


def option_sources(context: click.Context, settings: type[Settings]) -> dict[str, Source]:
    """Returns where the values come from that `load_section` lays over a section, by their names in the file."""
    options = {option.name: option for option in context.command.params}
    found: dict[str, Source] = {}
    for given in _given(context, settings):
        option = options[given.parameter]
        by_flag = given.source is ParameterSource.COMMANDLINE
        name = option.opts[0] if by_flag else str(option.envvar)
        if given.is_file:
            found[given.name] = Source(SourceKind.VALUE_FILE, str(context.params[given.parameter]), name)
        else:
            found[given.name] = Source(SourceKind.FLAG if by_flag else SourceKind.ENVIRONMENT, name)
    return found


def environment_context(program: str, settings: type[Settings], env_prefix: str) -> click.Context:
    """Returns the context of a command that is given no flags: the environment alone is laid over a section.

    Args:
        program: the name of the command, for messages.
        settings: the type of the section.
        env_prefix: as `setting_options` takes it.

    Raises:
        click.UsageError: a variable has a value of the wrong type.
    """
    command = setting_options(settings, env_prefix)(click.Command(program))
    return command.make_context(program, [])


@dataclass(frozen=True, slots=True)
class OptionNames:
    """How a setting is called outside the file.

    Attributes:
        flag: with its dashes.
        variable: the environment variable.
        may_be_file: whether there is another pair, with `-file` and `_FILE` at the end, that names a file.
    """

    flag: str
    variable: str
    may_be_file: bool


def option_names(settings: type[Settings], env_prefix: str) -> dict[str, OptionNames]:
    """Returns what the options are called that `setting_options` makes, by the setting's name in the file."""
    named = {field.encode_name: _names_of(settings, field, env_prefix) for field in msgspec.structs.fields(settings)}
    return {name: names for name, names in named.items() if names is not None}


@dataclass(frozen=True, slots=True)
class _Given:
    name: str
    parameter: str
    source: ParameterSource
    is_file: bool


def _given(context: click.Context, settings: type[Settings]) -> Iterator[_Given]:
    """Yields what environment and flags gave, what counts more after what it counts before."""
    for source in (ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE):
        for field in msgspec.structs.fields(settings):
            parameter = _parameter(settings, field.encode_name)
            for name, is_file in ((f"{parameter}_file", True), (parameter, False)):
                if context.get_parameter_source(name) is source:
                    yield _Given(field.encode_name, name, source, is_file)


def _parameter(settings: type[Settings], name: str) -> str:
    # One command may have options of two types of settings, with fields of the same name.
    return f"{settings.__name__}_{name}".lower()


def _names_of(settings: type[Settings], field: msgspec.structs.FieldInfo, env_prefix: str) -> OptionNames | None:
    simple, meta = _simple_type(hints_of(settings)[field.name])
    extra = (meta.extra if meta else None) or {}
    if simple is None or extra.get("option") is False:
        return None
    name = field.encode_name
    flag = f"--{extra.get('flag', name.replace('_', '-'))}"
    return OptionNames(flag, extra.get("env", f"{env_prefix}_{name.upper()}"), name in _WITH_FILE)


def _options_of(settings: type[Settings], field: msgspec.structs.FieldInfo, env_prefix: str) -> list[Callable[[F], F]]:
    names = _names_of(settings, field, env_prefix)
    if names is None:
        return []
    simple, meta = _simple_type(hints_of(settings)[field.name])
    flag, variable, parameter = names.flag, names.variable, _parameter(settings, field.encode_name)
    description = _help(field, meta)
    option: dict[str, Any] = {"envvar": variable, "show_envvar": True, "help": description}
    if simple is click.BOOL:
        made = [click.option(f"{flag}/--no-{flag[2:]}", parameter, default=None, **option)]
    else:
        made = [click.option(flag, parameter, type=simple, default=None, **option)]
    if names.may_be_file:
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
