"""Settings in force, written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin

import click
import msgspec
import yaml

from provgate_broker.configured import amqp_parameters, range_policy
from provgate_broker.settings import SECTION as RABBITMQ
from provgate_broker.settings import RabbitMqSettings
from provgate_client.cli.connection import grpc_section
from provgate_client.settings import SECTION as STORAGE
from provgate_client.settings import GrpcSettings
from provgate_gateway.settings import SECTION as GATEWAY
from provgate_gateway.settings import GatewaySettings
from provgate_operations.config.redaction import REDACTED, redacted
from provgate_runtime import ConfigDocument, Settings, load_section
from provgate_runtime.document import DEFAULT, ROOT, Source, SourceKind
from provgate_runtime.options import environment_context, option_sources
from provgate_runtime.settings import hints_of
from provgate_storage.registry import UnknownStorageError, local_storage, storage_class

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


Place: TypeAlias = tuple[str, ...]
"""The path of a setting in the file."""

_CLS: Final = "cls"
_GRPC: Final = "grpc"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in force.

    Attributes:
        place: its path in the file.
        value: what it is, without a secret; of plain types.
        source: where that comes from.
    """

    place: Place
    value: Any
    source: Source


def effective_settings(context: click.Context, config: Path | None) -> list[Setting]:
    """Returns all settings of all sections, in the order of the settings classes.

    Args:
        context: of `provgate`, whose options lie over the section of the storage.
        config: the file; None for the one that the environment names.

    Raises:
        ConfigurationError: the configuration is wrong.
        click.UsageError: an environment variable has a value of the wrong type.
    """
    document = ConfigDocument.load(config, profile=True)
    return [setting for section in SECTIONS for setting in _Loaded(section, document, context).settings()]


class _Loaded:
    """A section that was loaded and checked, as the programs that read it do."""

    def __init__(self, section: Section, document: ConfigDocument, root: click.Context) -> None:
        is_client = section.settings is GrpcSettings
        context = root if is_client else environment_context(section.program, section.settings, section.env_prefix)
        given = document.section(section.name)
        self._section = section
        self._given = grpc_section(dict(given)) if is_client else given
        self._sources = document.sources(section.name)
        # What lies over a mapping replaces all of it.
        self._over = option_sources(context, section.settings)
        self._values = load_section(context, section.settings, self._given, section.path)
        self._is_client = is_client
        _check(self._values, section)

    def settings(self) -> Iterator[Setting]:
        """Yields the settings of the section."""
        place = tuple(self._section.path.split("."))
        if self._is_client:
            yield Setting((*place, _CLS), _GRPC, self._source((_CLS,)))
        yield from self._of_struct(self._values, (), place)

    def _of_struct(self, values: Settings, within: Place, place: Place) -> Iterator[Setting]:
        for field in msgspec.structs.fields(type(values)):
            name, value = field.encode_name, getattr(values, field.name)
            path = (*within, name)
            if isinstance(value, Settings):
                yield from self._of_struct(value, path, (*place, name))
            elif name == STORAGE_CONFIG and value:
                yield from self._of_storage(value, path, (*place, name))
            else:
                program_sets = _program_sets(type(values), field.name)
                if program_sets is not None and self._source(path) is DEFAULT:
                    yield Setting((*place, name), None, Source(SourceKind.PROGRAM, program_sets))
                else:
                    yield from self._of_value(redacted(name, value), path, (*place, name))

    def _of_storage(self, config: Mapping[str, Any], within: Place, place: Place) -> Iterator[Setting]:
        given = {str(key): value for key, value in config.items()}
        cls = given.pop(_CLS)
        yield from self._of_value(cls, (*within, _CLS), (*place, _CLS))
        settings = settings_of_storage(cls)
        if settings is not None:
            yield from self._of_struct(msgspec.convert(given, settings), within, place)
            return
        # Somebody else's class: which of its settings are secrets is not known.
        for name in given:
            yield Setting((*place, name), REDACTED, self._source((*within, name)))

    def _of_value(self, value: Any, within: Place, place: Place) -> Iterator[Setting]:
        if isinstance(value, Mapping) and value:
            for key, each in value.items():
                yield from self._of_value(each, (*within, str(key)), (*place, str(key)))
        else:
            yield Setting(place, msgspec.to_builtins(value), self._source(within))

    def _source(self, within: Place) -> Source:
        return self._over.get(within[0]) or self._sources.get(within) or DEFAULT


def _check(values: Settings, section: Section) -> None:
    """Checks what the programs check beyond the types. Raises `ConfigurationError`."""
    if isinstance(values, RabbitMqSettings):
        amqp_parameters(values)
        range_policy(values)
        if values.topology == "existing":
            return
    storage_config = getattr(values, STORAGE_CONFIG, None)
    if storage_config:
        local_storage(storage_config, section.path)


def _program_sets(settings: type[Settings], name: str) -> str | None:
    hint = hints_of(settings)[name]
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((extra.extra["program_sets"] for extra in extras if "program_sets" in (extra.extra or {})), None)


def as_yaml(settings: Sequence[Setting]) -> str:
    """Returns settings as a configuration file, with the source of each value behind it."""
    return "".join(f"{line}\n" for line in _lines(settings))


def as_json(settings: Sequence[Setting]) -> str:
    """Returns settings as a JSON object, for programs: `settings` is a list with path, value and source of each."""
    told = [
        {
            "path": ".".join(setting.place),
            "value": setting.value,
            "source": setting.source.kind,
            "name": setting.source.name,
            "named_by": setting.source.named_by,
        }
        for setting in settings
    ]
    return msgspec.json.format(msgspec.json.encode({"settings": told}), indent=2).decode() + "\n"


def scalar(value: Any) -> str:
    """Returns a value as it stands behind a key, on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _lines(settings: Sequence[Setting]) -> Iterator[str]:
    opened: Place = ()
    for setting in settings:
        *parents, name = setting.place
        shared = _shared_count(opened, parents)
        for depth in range(shared, len(parents)):
            yield f"{'  ' * depth}{_key(parents[depth])}:"
        opened = tuple(parents)
        source = _on_one_line(str(setting.source))
        yield f"{'  ' * len(parents)}{_key(name)}: {scalar(setting.value)}  # {source}"


def _shared_count(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def _key(name: str) -> str:
    return scalar(name)


def _on_one_line(text: str) -> str:
    # It names files, whose names may be anything.
    return text if text.isprintable() else json.dumps(text)
