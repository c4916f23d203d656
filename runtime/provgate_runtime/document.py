"""The configuration file: where it is found, what it holds, and the source of each value."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from provgate_runtime.settings import ConfigurationError

ROOT: Final = "provenance"
SECTIONS: Final = ("storage", "rabbitmq", "gateway")

# Ignored with a warning: other deployments have it in the same file.
IGNORED_SECTIONS: Final = ("archive",)

# Settings that may hold a secret. Each may be given as `<name>_file`: the file that holds the value.
SECRETS: Final = ("url", "password", "db", "token")

# The environment variables that name the configuration file; the first that is set counts.
FILE_VARIABLES: Final = ("PROVGATE_CONFIG", "SWH_CONFIG_FILENAME")

# Below the clone, the directory of the stack that `make up` keeps running.
_STACKS: Final = ".stack"
_STACK: Final = "up"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class SourceKind(StrEnum):
    """The kind of a source."""

    DEFAULT = "default"
    PROGRAM = "program"  # each program computes its own value
    FILE = "file"
    VALUE_FILE = "value_file"  # a file that holds only this value
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from.

    Attributes:
        kind: the kind of source.
        name: the file, variable or flag; None for a default.
        named_by: the key, variable or flag that names a file with only this value.
    """

    kind: SourceKind
    name: str | None = None
    named_by: str | None = None

    def __str__(self) -> str:
        named_by = f", named by {self.named_by}" if self.named_by else ""
        return f"{self.name or self.kind}{named_by}"


DEFAULT: Final = Source(SourceKind.DEFAULT)


class ConfigDocument:
    """The content of a configuration file; empty if there is no file.

    Attributes:
        path: the file; None if there is none.
        warnings: what was ignored, for the program to log.

    Raises:
        ConfigurationError: a key or section is unknown, or not a mapping.
    """

    def __init__(self, content: Mapping[str, Any], path: Path | None = None) -> None:
        self.path = path
        self.warnings: list[str] = []
        for key in content:
            if key != ROOT:
                raise ConfigurationError(f"{key}: unknown key; the one key of a configuration is `{ROOT}`")
        sections = content.get(ROOT)
        if sections is None:
            sections = {}
        if not isinstance(sections, dict):
            raise ConfigurationError(f"{ROOT}: Expected `object`, got `{type(sections).__name__}`")
        for name in sections:
            if name in IGNORED_SECTIONS:
                self.warnings.append(f"{ROOT}.{name} is ignored: provgate has no use for it")
            elif name not in SECTIONS:
                raise ConfigurationError(f"{ROOT}.{name}: unknown key; there are {', '.join(SECTIONS)}")
        self._sections = sections

    @classmethod
    def load(cls, path: Path | None = None, *, profile: bool = False) -> ConfigDocument:
        """Reads the file at `path`, else the one that the environment names. Without either the document is empty.

        Args:
            path: the file.
            profile: whether to read the profile of a running stack if no other file is named.

        Raises:
            ConfigurationError: the file cannot be read or is not a mapping with the one key `provenance`.
        """
        variables = (os.environ[variable] for variable in FILE_VARIABLES if os.environ.get(variable))
        named, warning = next(variables, None), None
        if path is None and named is not None:
            path = Path(named)
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
            # ValueError: a scalar looks like a date and is none. The text of a YAML error quotes the lines around it,
            # which may hold a secret, so the message has the place alone.
            mark = getattr(error, "problem_mark", None)
            place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it cannot be parsed"
            raise ConfigurationError(f"{path}: the configuration file is not YAML: {place}") from error
        if content is None:
            return cls({}, path)
        if not isinstance(content, dict):
            raise ConfigurationError(f"{path}: the configuration file is not a mapping")
        return cls(content, path)

    def section(self, name: str) -> dict[str, Any]:
        """Returns a section, with the secrets that it names files for. It is empty if the file has none.

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
        """Returns the source of each value of a section, by the value's path in it. A list has one source."""
        section = self._sections.get(name)
        return dict(_sources(section, str(self.path))) if isinstance(section, dict) else {}


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


def _with_secrets(section: Mapping[str, Any], path: str) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for key, value in section.items():
        secret = _secret_of(key)
        if isinstance(value, dict):
            resolved[key] = _with_secrets(value, f"{path}.{key}")
        elif secret is None:
            resolved[key] = value
        elif secret in section:
            raise ConfigurationError(f"{path}.{key}: give it or {path}.{secret}, not both")
        else:
            resolved[secret] = read_secret(value, f"{path}.{key}")
    return resolved


def _sources(section: Mapping[object, object], file: str) -> Iterator[tuple[tuple[str, ...], Source]]:
    for key, value in section.items():
        secret = _secret_of(key)
        if isinstance(value, dict) and value:
            yield from (((str(key), *path), source) for path, source in _sources(value, file))
        elif secret is not None:
            yield (secret,), Source(SourceKind.VALUE_FILE, str(value), f"{key} in {file}")
        else:
            yield (str(key),), Source(SourceKind.FILE, file)


def _secret_of(key: object) -> str | None:
    """Returns the setting whose value is in the file that `key` names; None if `key` names no such file."""
    stem = str(key).removesuffix("_file")
    return stem if stem != key and stem in SECRETS else None


def profile_name() -> str:
    """Returns the file name of a profile in the directory of its stack.

    It has the boot id of the kernel. A stack and its profile do not outlive a boot, and a repository or archive
    cannot bring a valid profile along.

    Raises:
        OSError: this system has no boot id.
    """
    return f"profile-{_BOOT_ID.read_text(encoding='ascii').strip()}.yml"


def find_profile() -> tuple[Path | None, str | None]:
    """Looks for a profile in the working directory and above it, and stops at the first.

    A profile decides where facts are written. It is used only if it and its directories belong to the user, and
    nobody else may change them.

    Returns:
        The profile, and the reason why a profile that is there is not used.
    """
    try:
        name, working_directory = profile_name(), Path.cwd()
    except OSError:
        # Not Linux, or a directory that was removed.
        return None, None
    for clone in (working_directory, *working_directory.parents):
        stack = clone / _STACKS / _STACK
        profile = stack / name
        # A stack that may not be seen counts as absent.
        if not os.path.lexists(stack):
            continue
        try:
            found = [path.lstat() for path in (stack.parent, stack, profile)]
        except FileNotFoundError:
            continue
        except OSError:
            return None, f"{stack} is not used: it belongs to somebody else"
        if any(each.st_uid != os.geteuid() or stat.S_ISLNK(each.st_mode) for each in found):
            return None, f"{profile} is not used: it or its directory belongs to somebody else"
        if any(each.st_mode & 0o077 for each in found[1:]):
            return None, f"{profile} is not used: others may read or change it"
        return profile, None
    return None, None
