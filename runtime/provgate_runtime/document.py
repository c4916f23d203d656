"""The configuration file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from provgate_runtime.errors import ConfigurationError

# Below the clone.
_STACKS: Final = ".stack"
_STACK: Final = "up"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def profile_name() -> str:
    """Returns the name of a profile's file in the directory of its stack.

    The kernel draws a boot id whenever it boots. No stack outlives that, and so does no profile; nor can a repository
    or an archive bring a profile along.

    Raises:
        OSError: this system has no boot id.
    """
    return f"profile-{_BOOT_ID.read_text(encoding='ascii').strip()}.yml"


def find_profile() -> tuple[Path | None, str | None]:
    """Looks for a profile in the working directory and all directories above it, and stops at the first.

    A profile decides where facts are written to: it counts if it and its directories are the user's, and nobody else
    may change them.

    Returns:
        The profile, and why one that is there does not count.
    """
    try:
        name, working_directory = profile_name(), Path.cwd()
    except OSError:
        # Not Linux, or a directory that was removed.
        return None, None
    for clone in (working_directory, *working_directory.parents):
        stack = clone / _STACKS / _STACK
        profile = stack / name
        if not os.path.lexists(stack):
            # Or it may not be seen.
            continue
        try:
            found = [path.lstat() for path in (stack.parent, stack, profile)]
        except FileNotFoundError:
            continue
        except OSError:
            return None, f"{stack} is not used: it belongs to somebody else"
        if any(each.st_uid != os.geteuid() or stat.S_ISLNK(each.st_mode) for each in found):
            return None, f"{profile} is not used: it, or a directory that it is in, belongs to somebody else"
        if any(each.st_mode & 0o077 for each in found[1:]):
            return None, f"{profile} is not used: others may read or change it"
        return profile, None
    return None, None


class SourceKind(StrEnum):
    """What gave a value.

    Attributes:
        DEFAULT: nothing; it is the setting's default.
        PROGRAM: nothing; each program sets its own.
        FILE: the configuration file.
        VALUE_FILE: a file that holds this value alone.
        ENVIRONMENT: an environment variable.
        FLAG: a flag of the command line.
    """

    DEFAULT = "default"
    PROGRAM = "program"
    FILE = "file"
    VALUE_FILE = "value_file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from.

    Attributes:
        kind: what gave it.
        name: of the file, variable or flag; None for a default.
        named_by: what names a file that holds this value alone: a key, variable or flag.
    """

    kind: SourceKind
    name: str | None = None
    named_by: str | None = None

    def __str__(self) -> str:
        named_by = f", named by {self.named_by}" if self.named_by else ""
        return f"{self.name or self.kind}{named_by}"


DEFAULT: Final = Source(SourceKind.DEFAULT)


ROOT: Final = "provenance"
SECTIONS: Final = ("storage", "rabbitmq", "gateway")

# Ignored with a warning: part of the layout that operators of other deployments have.
IGNORED_SECTIONS: Final = ("archive",)

# The settings that may hold a secret, each of which may be given as `<name>_file` instead: a file to read it from.
SECRETS: Final = ("url", "password", "db", "token")

# The variables that name the file, in the order in which they count.
FILE_VARIABLES: Final = ("PROVGATE_CONFIG", "SWH_CONFIG_FILENAME")


class ConfigDocument:
    """A configuration file that was read, or none.

    Attributes:
        path: of the file; None where there is none.
        warnings: what was met and ignored, for the program to log.
    """

    def __init__(self, content: Mapping[str, Any], path: Path | None = None) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._sections = self._checked(content)

    @classmethod
    def load(cls, path: Path | None = None, *, profile: bool = False) -> ConfigDocument:
        """Reads the file at `path`, else the one that the environment names; without either, an empty document.

        Args:
            path: of the file.
            profile: whether a profile of the working directory is read where there is no other file.

        Raises:
            ConfigurationError: the file cannot be read or is not a mapping with the one key `provenance`.
        """
        path, warning = path or _path_of_environment(), None
        if path is None and profile:
            path, warning = find_profile()
        if path is None:
            document = cls({})
            document.warnings += [] if warning is None else [warning]
            return document
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"{path}: the configuration file cannot be read: {reason}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # ValueError: a scalar that looks like a date and is none.
            raise ConfigurationError(f"{path}: the configuration file is not YAML: {_yaml_place(error)}") from error
        if content is None:
            return cls({}, path)
        if not isinstance(content, dict):
            raise ConfigurationError(f"{path}: the configuration file is not a mapping")
        return cls(content, path)

    def section(self, name: str) -> dict[str, Any]:
        """Returns a section, empty where the file has none, with the secrets that it names files for.

        Raises:
            ConfigurationError: the section is not a mapping, or the file of a secret cannot be read.
        """
        section = self._sections.get(name)
        if section is None:
            return {}
        path = f"{ROOT}.{name}"
        if not isinstance(section, dict):
            raise ConfigurationError(f"{path}: Expected `object`, got `{type(section).__name__}`")
        return _with_secrets(section, path)

    def sources(self, name: str) -> dict[tuple[str, ...], Source]:
        """Returns where the values of a section come from, by their paths in it. Of a list there is one source."""
        section = self._sections.get(name)
        return dict(_sources(section, str(self.path))) if isinstance(section, dict) else {}

    def _checked(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in content:
            if key != ROOT:
                raise ConfigurationError(f"{key}: unknown key; the one key of a configuration is `{ROOT}`")
        sections = content.get(ROOT)
        if sections is None:
            return {}
        if not isinstance(sections, dict):
            raise ConfigurationError(f"{ROOT}: Expected `object`, got `{type(sections).__name__}`")
        for name in sections:
            if name in IGNORED_SECTIONS:
                self.warnings.append(f"{ROOT}.{name} is ignored: provgate has no use for it")
            elif name not in SECTIONS:
                raise ConfigurationError(f"{ROOT}.{name}: unknown key; there are {', '.join(SECTIONS)}")
        return sections


def _path_of_environment() -> Path | None:
    for variable in FILE_VARIABLES:
        if os.environ.get(variable):
            return Path(os.environ[variable])
    return None


def _yaml_place(error: Exception) -> str:
    # The text of a YAML error quotes the lines around it, which may hold a secret: only the place is told.
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it cannot be parsed"


def _with_secrets(section: Mapping[str, Any], path: str) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for key, value in section.items():
        stem = _secret_of(key)
        if isinstance(value, dict):
            resolved[key] = _with_secrets(value, f"{path}.{key}")
        elif stem is not None:
            if stem in section:
                raise ConfigurationError(f"{path}.{key}: give it or {path}.{stem}, not both")
            resolved[stem] = read_secret(value, f"{path}.{key}")
        else:
            resolved[key] = value
    return resolved


def _sources(section: Mapping[Any, Any], file: str) -> Iterator[tuple[tuple[str, ...], Source]]:
    for key, value in section.items():
        stem = _secret_of(key)
        if isinstance(value, dict) and value:
            yield from (((str(key), *path), source) for path, source in _sources(value, file))
        elif stem is not None:
            yield (stem,), Source(SourceKind.VALUE_FILE, str(value), f"{key} in {file}")
        else:
            yield (str(key),), Source(SourceKind.FILE, file)


def _secret_of(key: object) -> str | None:
    """Returns the setting whose value is in a file that `key` names; None where `key` names none."""
    stem = str(key).removesuffix("_file")
    return stem if stem != key and stem in SECRETS else None


def read_secret(file: object, path: str) -> str:
    """Returns the secret that a file holds, without the newline at its end.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if not isinstance(file, str):
        raise ConfigurationError(f"{path}: Expected `str`, got `{type(file).__name__}`")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the file {file} cannot be read") from error
