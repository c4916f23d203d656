"""The settings in force, each with its source, as YAML or JSON. Values that may hold a secret are hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias, get_args, get_origin

import click
import msgspec
import yaml

from provgate_broker.settings import SECTION as RABBITMQ
from provgate_broker.settings import RabbitMqSettings, amqp_parameters, range_policy
from provgate_client.cli.connection import grpc_section
from provgate_client.settings import SECTION as STORAGE
from provgate_client.settings import GrpcSettings
from provgate_gateway.settings import SECTION as GATEWAY
from provgate_gateway.settings import GatewaySettings
from provgate_runtime import ConfigDocument, Settings, load_section
from provgate_runtime.document import DEFAULT, ROOT, Source, SourceKind
from provgate_runtime.options import environment_context, option_sources
from provgate_runtime.settings import hints_of
from provgate_storage.registry import UnknownStorageError, local_storage, storage_class

STORAGE_CONFIG: Final = "storage_config"
"""The settings of a local storage: `cls`, and the fields of that class's own settings."""

HIDDEN: Final = "***"
"""The text in place of a value that may hold a secret."""

# A URL, a DSN or a database mapping may hold a password; no part of them is shown.
_SECRET_NAME: Final = re.compile("(url|db)|.*(pass|pwd|secret|token|credential|api_?key).*")

Place: TypeAlias = tuple[str, ...]
"""The path of a setting in the file."""

# Reading the configuration refuses a user, a path or a query in it.
_GATEWAY_ADDRESS: Final[Place] = (ROOT, STORAGE, "url")


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the configuration.

    Attributes:
        name: its name.
        settings: the type of its settings.
        program: the program whose options override it.
        env_prefix: the prefix of their environment variables.
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


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in force.

    Attributes:
        place: its path in the file.
        value: its value in plain types, or `HIDDEN`.
        source: the source of the value.
    """

    place: Place
    value: object
    source: Source


def effective_settings(context: click.Context, config: Path | None) -> list[Setting]:
    """Returns all settings of all sections, in the order of the settings classes.

    Args:
        context: the context of `provgate`, whose options override the section of the storage.
        config: the file; None for the one that the environment names.

    Raises:
        ConfigurationError: the configuration is wrong.
        click.UsageError: an environment variable has a value of the wrong type.
    """
    document = ConfigDocument.load(config, profile=True)
    return [setting for section in SECTIONS for setting in _SectionReader(section, document, context).read()]


def settings_of_storage(cls: object) -> type[Settings] | None:
    """Returns the type of the settings of a storage class; None if it has none or is not installed."""
    try:
        found = getattr(storage_class(cls), "settings_type", None) if isinstance(cls, str) else None
    except UnknownStorageError:
        return None
    return found if isinstance(found, type) and issubclass(found, Settings) else None


class _SectionReader:
    """Reads a section, and checks it as the programs that use it do."""

    def __init__(self, section: Section, document: ConfigDocument, context: click.Context) -> None:
        self._section = section
        self._document = document
        given = document.section(section.name)
        if section.settings is GrpcSettings:
            given = grpc_section(given)
        else:
            context = environment_context(section.program, section.settings, section.env_prefix)
        self._values = load_section(context, section.settings, given, section.path)
        # An option that is a mapping replaces the whole mapping of the file.
        self._overrides = option_sources(context, section.settings)
        self._sources = document.sources(section.name)

    def read(self) -> Iterator[Setting]:
        """Yields the settings of the section. Raises `ConfigurationError` if they do not fit together."""
        values = self._values
        if isinstance(values, RabbitMqSettings):
            amqp_parameters(values)
            range_policy(values)
        own_topology = not isinstance(values, RabbitMqSettings) or values.topology != "existing"
        storage_config = getattr(values, STORAGE_CONFIG, None)
        if own_topology and storage_config:
            local_storage(storage_config, self._section.path)
        if isinstance(values, GrpcSettings):
            yield self._setting(("cls",), "grpc")
        yield from self._of_struct(values, ())

    def _of_struct(self, values: Settings, within: Place) -> Iterator[Setting]:
        for field in msgspec.structs.fields(type(values)):
            path, value = (*within, field.encode_name), getattr(values, field.name)
            if isinstance(value, Settings):
                yield from self._of_struct(value, path)
            elif field.encode_name == STORAGE_CONFIG and value:
                yield from self._of_storage(value, path)
            elif (program_sets := _program_sets(type(values), field.name)) and self._source(path) is DEFAULT:
                yield Setting(self._place(path), None, Source(SourceKind.PROGRAM, program_sets))
            else:
                yield from self._of_value(value, path)

    def _of_storage(self, config: Mapping[str, object], within: Place) -> Iterator[Setting]:
        given = {str(key): value for key, value in config.items()}
        cls = given.pop("cls")
        yield self._setting((*within, "cls"), cls)
        settings = settings_of_storage(cls)
        if settings is not None:
            yield from self._of_struct(msgspec.convert(given, settings), within)
            return
        # A storage class of another distribution: nobody knows which of its settings are secrets.
        for name in given:
            yield self._setting((*within, name), HIDDEN)

    def _of_value(self, value: object, within: Place) -> Iterator[Setting]:
        if isinstance(value, Mapping) and value and not _may_hold_secret(within[-1], None):
            for key, each in value.items():
                yield from self._of_value(each, (*within, str(key)))
        elif value is not None and self._place(within) != _GATEWAY_ADDRESS and _may_hold_secret(within[-1], value):
            yield self._setting(within, HIDDEN)
        else:
            yield self._setting(within, msgspec.to_builtins(value))

    def _setting(self, within: Place, value: object) -> Setting:
        return Setting(self._place(within), value, self._source(within))

    def _place(self, within: Place) -> Place:
        return (ROOT, self._section.name, *within)

    def _source(self, within: Place) -> Source:
        if within[0] in self._overrides:
            return self._overrides[within[0]]
        if within in self._sources:
            return self._sources[within]
        # A hidden mapping: the file gives its keys.
        is_given = any(path[: len(within)] == within for path in self._sources)
        return Source(SourceKind.FILE, str(self._document.path)) if is_given else DEFAULT


def _may_hold_secret(name: str, value: object) -> bool:
    # The value of `tokens_file` is the name of a file.
    named = not name.endswith("_file") and _SECRET_NAME.fullmatch(name.lower().replace("-", "_"))
    return bool(named) or "://" in str(value)


def _program_sets(settings: type[Settings], name: str) -> str | None:
    """Returns how each program computes a setting that is not given; None if it has a plain default."""
    hint = hints_of(settings)[name]
    metas = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((meta.extra["program_sets"] for meta in metas if "program_sets" in (meta.extra or {})), None)


def as_json(settings: Sequence[Setting]) -> str:
    """Returns settings as a JSON object, for programs: `settings` lists the path, value and source of each."""
    listed = [
        {
            "path": ".".join(setting.place),
            "value": setting.value,
            "source": setting.source.kind,
            "name": setting.source.name,
            "named_by": setting.source.named_by,
        }
        for setting in settings
    ]
    return msgspec.json.format(msgspec.json.encode({"settings": listed}), indent=2).decode() + "\n"


def as_yaml(settings: Sequence[Setting]) -> str:
    """Returns settings as a configuration file, with the source of each value as a comment behind it."""
    lines: list[str] = []
    opened: list[str] = []
    for setting in settings:
        *parents, name = setting.place
        for depth, parent in enumerate(parents):
            if opened[: depth + 1] != parents[: depth + 1]:
                lines.append(f"{'  ' * depth}{scalar(parent)}:")
        opened = parents
        source = str(setting.source)
        # It contains file names, which may have any character.
        source = source if source.isprintable() else json.dumps(source)
        lines.append(f"{'  ' * len(parents)}{scalar(name)}: {scalar(setting.value)}  # {source}")
    return "".join(f"{line}\n" for line in lines)


def scalar(value: object) -> str:
    """Returns a value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
