"""A sample configuration, made from the settings classes: every key with its meaning, bounds and default."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from provgate_operations.config.effective import SECTIONS, STORAGE_CONFIG, scalar, settings_of_storage
from provgate_runtime import Settings
from provgate_runtime.document import ROOT, SECRETS
from provgate_runtime.options import SettingOption, options_of
from provgate_runtime.settings import hints_of

_WIDTH: Final = 110

# Marks a line that is a setting; a line of prose has a space after the first mark.
KEY: Final = "#"
OTHER_KEY: Final = "##"

_HEAD: Final = f"""\
# Every setting of provgate, with its default. Remove the {KEY} before a key to set it. A flag overrides an environment
# variable, and both override this file, which PROVGATE_CONFIG or --config names. Above each key are its meaning, and
# its environment variable and flag if it has them.
#
# Printed by `provgate config sample`; `provgate config show` prints the settings in force and their sources.
"""

# The storages of workers and gateway, with an example of the setting that has no default.
_STORAGES: Final[tuple[tuple[str, str, object], ...]] = (
    ("postgresql", KEY, {"host": "localhost", "dbname": "provenance", "user": "provgate"}),
    ("mongodb", OTHER_KEY, "mongodb://localhost/provenance"),
)


def sample() -> str:
    """Returns the sample, as YAML. A key of MongoDB has two marks, because PostgreSQL's keys stand there already."""
    lines = [*_HEAD.splitlines(), "", f"{ROOT}:"]
    for section in SECTIONS:
        lines += _indented(_prose(f"{_first_paragraph(section.settings)} Flags are those of {section.program}."))
        lines += _indented([f"{section.name}:"])
        if section.program == "provgate":
            lines += _indented(_indented(["# The storage of clients is the gateway.", f"{KEY}cls: grpc", ""]))
        options = {option.name: option for option in options_of(section.settings, section.env_prefix)}
        lines += _indented(_indented(_of_settings(section.settings, KEY, options, {})))
    # A nested block and the block around it both end with an empty line.
    return re.sub("\n{3,}", "\n\n", "".join(f"{line.rstrip()}\n" for line in lines)).rstrip() + "\n"


def _of_settings(
    settings: type[Settings], mark: str, options: Mapping[str, SettingOption], examples: Mapping[str, object]
) -> Iterator[str]:
    for field in msgspec.structs.fields(settings):
        name = field.encode_name
        yield from _prose(" ".join(_facts(name, hints_of(settings)[field.name])))
        if name in options:
            option = options[name]
            file = f"; {option.variable}_FILE, {option.flag}-file" if option.may_be_file else ""
            yield from _prose(f"{option.variable}, {option.flag}{file}")
        default = examples[name] if name in examples else _default(field)
        if isinstance(default, Settings):
            yield f"{mark}{name}:"
            yield from _indented(_of_settings(type(default), mark, {}, {}))
        elif name == STORAGE_CONFIG and default is not None:
            yield from _of_storages()
        else:
            yield f"{mark}{name}: {scalar(msgspec.to_builtins(default))}"
        yield ""


def _of_storages() -> Iterator[str]:
    for cls, mark, db in _STORAGES:
        settings = settings_of_storage(cls)
        if settings is None:
            yield from _prose(f"The keys of {cls} are not known here: pip install 'provgate[{cls}]'.")
            continue
        if mark == OTHER_KEY:
            yield f"# Or, with {mark} before each key because there can be only one {STORAGE_CONFIG}:"
        yield f"{mark}{STORAGE_CONFIG}:"
        yield from _indented([*_prose(_first_paragraph(settings)), f"{mark}cls: {cls}", ""])
        yield from _indented(_of_settings(settings, mark, {}, {"db": db}))


def _facts(name: str, hint: object) -> Iterator[str]:
    """Yields the sentences about a setting: its description, its values or bounds, and other ways to give it."""
    parts = list(_parts(hint))
    metas = [meta for part in parts for meta in getattr(part, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    yield from (meta.description for meta in metas if meta.description)
    if values := [value for part in parts if get_origin(part) is Literal for value in get_args(part)]:
        yield f"One of {', '.join(map(str, values))}."
    for meta in metas:
        bounds = (("more than", meta.gt), ("at least", meta.ge), ("at most", meta.le))
        if texts := [f"{text} {bound:,}" for text, bound in bounds if bound is not None]:
            yield f"{', '.join(texts).capitalize()}."
    extra: dict[str, Any] = {key: value for meta in metas for key, value in (meta.extra or {}).items()}
    if "program_sets" in extra:
        yield f"If not given, {extra['program_sets']}."
    if name in SECRETS:
        yield f"Or {name}_file: a file that holds it."


def _parts(hint: object) -> Iterator[object]:
    """Yields a type and the types that it consists of."""
    yield hint
    if get_origin(hint) is not Literal:
        for each in get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint):
            yield from _parts(each)


def _default(field: FieldInfo) -> object:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return None if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _first_paragraph(settings: type[Settings]) -> str:
    return " ".join((settings.__doc__ or "").partition("\n\n")[0].split())


def _prose(text: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}" for line in lines]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
