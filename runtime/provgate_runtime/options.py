"""Flags and environment variables for settings, made from the types of the settings.

Every field of a simple type becomes an option of the command, with the field's description as its help and with an
environment variable. So `--help` lists all settings, and nothing is described twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import click
import msgspec
from click.core import ParameterSource

from provgate_runtime.document import Source, SourceKind, read_secret
from provgate_runtime.settings import Settings, convert, hints_of

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Settings)

# Settings of a simple type that may hold a secret: another option names a file with the value.
_WITH_FILE: Final = ("url", "token")
_SIMPLE: Final[dict[object, click.ParamType[Any]]] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    bool: click.BOOL,
}


@dataclass(frozen=True, slots=True)
class SettingOption:
    """The option of a setting.

    Attributes:
        name: the setting's name in the file.
        parameter: the option's name in the click context.
        flag: the flag, with its dashes.
        variable: the environment variable.
        type: the type of the value.
        help: the help text.
        may_be_file: whether another flag and variable, with `-file` and `_FILE` at the end, name a file with the value.
    """

    name: str
    parameter: str
    flag: str
    variable: str
    type: click.ParamType[Any]
    help: str
    may_be_file: bool

    def add_to(self, command: F) -> F:
        """Adds the option to a click command, and the one of the file."""
        if self.may_be_file:
            text = f"A file that holds the value of {self.flag}."
            name, variable = f"{self.parameter}_file", f"{self.variable}_FILE"
            command = click.option(f"{self.flag}-file", name, envvar=variable, show_envvar=True, help=text)(command)
        flags = f"{self.flag}/--no-{self.flag[2:]}" if self.type is click.BOOL else self.flag
        kind = None if self.type is click.BOOL else self.type
        option = click.option(
            flags, self.parameter, type=kind, default=None, envvar=self.variable, show_envvar=True, help=self.help
        )
        return option(command)


def options_of(settings: type[Settings], env_prefix: str) -> list[SettingOption]:
    """Returns the options that `setting_options` adds, in the order of the fields."""
    options = []
    for field in msgspec.structs.fields(settings):
        click_type, meta = _click_type(hints_of(settings)[field.name])
        extra = (meta.extra if meta else None) or {}
        if click_type is None or extra.get("option") is False:
            continue
        name = field.encode_name
        text = (meta.description if meta else None) or ""
        if field.default not in (msgspec.NODEFAULT, None):
            text += f" [default: {field.default}]"
        flag = f"--{extra.get('flag', name.replace('_', '-'))}"
        variable = extra.get("env", f"{env_prefix}_{name.upper()}")
        parameter = _parameter(settings, name)
        options.append(SettingOption(name, parameter, flag, variable, click_type, text, name in _WITH_FILE))
    return options


def setting_options(settings: type[Settings], env_prefix: str, only: Collection[str] | None = None) -> Callable[[F], F]:
    """Returns a decorator that gives a click command an option for each simple field of `settings`.

    A field `batch_size` becomes `--batch-size` and `<env_prefix>_BATCH_SIZE`. The extra data of a field's `Meta` may
    name another flag (`flag`) or environment variable (`env`), or keep the field out of the command line
    (`option=False`). A field named `url` or `token` also gets a flag with `-file` at its end, to keep a secret out of
    process lists.

    Args:
        settings: the type of the settings.
        env_prefix: the prefix of the environment variables.
        only: the fields, by their names in the file, that become options; all if None.
    """

    def decorate(command: F) -> F:
        for option in reversed(options_of(settings, env_prefix)):
            if only is None or option.name in only:
                command = option.add_to(command)
        return command

    return decorate


def load_section(context: click.Context, settings: type[S], section: dict[str, Any], path: str) -> S:
    """Returns the settings of a section, overridden by flags and environment variables.

    Args:
        context: the context of a command that `setting_options` decorated for `settings`.
        settings: the type of the section.
        section: the section as the configuration file gives it.
        path: the section's path, for messages.

    Raises:
        ConfigurationError: as `convert` does.
    """
    merged = dict(section)
    for name, parameter, _, is_file in _overrides(context, settings):
        value = context.params[parameter]
        merged[name] = read_secret(value, f"{path}.{name}_file") if is_file else value
    return convert(merged, settings, path)


def option_sources(context: click.Context, settings: type[Settings]) -> dict[str, Source]:
    """Returns the sources of the values that `load_section` takes from flags and environment, by name in the file."""
    options = {option.name: option for option in context.command.params}
    sources: dict[str, Source] = {}
    for name, parameter, given_by, is_file in _overrides(context, settings):
        is_flag = given_by is ParameterSource.COMMANDLINE
        called = options[parameter].opts[0] if is_flag else str(options[parameter].envvar)
        if is_file:
            sources[name] = Source(SourceKind.VALUE_FILE, str(context.params[parameter]), called)
        else:
            sources[name] = Source(SourceKind.FLAG if is_flag else SourceKind.ENVIRONMENT, called)
    return sources


def environment_context(program: str, settings: type[Settings], env_prefix: str) -> click.Context:
    """Returns the context of a command without flags: the environment alone overrides a section.

    Args:
        program: the name of the command, for messages.
        settings: the type of the section.
        env_prefix: as `setting_options` takes it.

    Raises:
        click.UsageError: a variable has a value of the wrong type.
    """
    return setting_options(settings, env_prefix)(click.Command(program)).make_context(program, [])


def _overrides(context: click.Context, settings: type[Settings]) -> Iterator[tuple[str, str, ParameterSource, bool]]:
    """Yields the values from environment and flags; the last one of a setting counts.

    Each has the setting's name, the parameter, its source, and whether it names a file with the value.
    """
    for source in (ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE):
        for field in msgspec.structs.fields(settings):
            parameter = _parameter(settings, field.encode_name)
            for name, is_file in ((f"{parameter}_file", True), (parameter, False)):
                if context.get_parameter_source(name) is source:
                    yield field.encode_name, name, source, is_file


def _parameter(settings: type[Settings], name: str) -> str:
    # A command may have options of two settings types, with fields of the same name.
    return f"{settings.__name__}_{name}".lower()


def _click_type(hint: Any) -> tuple[click.ParamType[Any] | None, msgspec.Meta | None]:
    """Returns the click type of a field, None if it is not simple, and the field's `Meta`."""
    meta = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        # The type of a field may have a `Meta` of its own, which comes before the field's.
        meta = next((extra for extra in reversed(extras) if isinstance(extra, msgspec.Meta)), None)
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        hint = members[0] if len(members) == 1 else None
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return click.Choice([str(value) for value in get_args(hint)]), meta
    return _SIMPLE.get(hint), meta


# Looks like a hyphen, but lines are not broken at it.
_HYPHEN: Final = "\N{NON-BREAKING HYPHEN}"


class HelpFormatter(click.HelpFormatter):
    """Breaks lines of help texts only at spaces; click also breaks them at hyphens and in long words."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Writes the usage line."""
        super().write_usage(prog.replace("-", _HYPHEN), args.replace("-", _HYPHEN), prefix)

    def write_text(self, text: str) -> None:
        """Writes a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Writes terms and their descriptions; the column of terms leaves space for the longest word beside it."""
        kept = [(term, text.replace("-", _HYPHEN)) for term, text in rows]
        longest = max((len(word) for _, text in kept for word in text.split()), default=0)
        super().write_dl(kept, max(0, min(col_max, self.width - longest - col_spacing - 2)), col_spacing)

    def getvalue(self) -> str:
        """Returns the text."""
        return super().getvalue().replace(_HYPHEN, "-")


def keep_names_whole() -> None:
    """Makes the help texts of this process keep names whole. The module of a command line calls it."""
    click.Context.formatter_class = HelpFormatter
