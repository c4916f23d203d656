"""A sample configuration, made of the settings classes: every key with what it means, its bounds and its default."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from provgate_operations.config.effective import SECTIONS, STORAGE_CONFIG, Section, scalar, settings_of_storage
from provgate_runtime import Settings
from provgate_runtime.document import ROOT, SECRETS
from provgate_runtime.options import OptionNames, option_names
from provgate_runtime.settings import hints_of

_WIDTH: Final = 110
_STEP: Final = "  "

# A line that is a setting, as a line of prose never begins.
KEY: Final = "#"
OTHER_KEY: Final = "##"

_HEAD: Final = f"""\
# Every setting of provgate, with its default. Take away the {KEY} before a key to set it. A flag counts before an
# environment variable, and that before this file, which PROVGATE_CONFIG or --config names. Before each key are what it
# means, and its environment variable and flag where it has them.
#
# Printed by `provgate config sample`; `provgate config show` prints what is in force, and why.
"""

_GRPC: Final = ("# The storage of clients is the gateway.", f"{KEY}cls: grpc")

# The storages of workers and gateway, with an example of what has no default.
_STORAGES: Final = (
    ("postgresql", KEY, {"host": "localhost", "dbname": "provenance", "user": "provgate"}),
    ("mongodb", OTHER_KEY, "mongodb://localhost/provenance"),
)


def sample() -> str:
    """Returns the sample, as YAML. A key of MongoDB, where PostgreSQL's stand already, has two marks before it."""
    lines = [*_HEAD.splitlines(), "", f"{ROOT}:"]
    for section in SECTIONS:
        lines += _indented(_of_section(section))
    # What ends within something ends with a line between, and so does what is around it.
    return re.sub("\n{3,}", "\n\n", "".join(f"{line.rstrip()}\n" for line in lines)).rstrip() + "\n"


def _of_section(section: Section) -> Iterator[str]:
    yield from _prose(f"{_first_paragraph(section.settings)} Flags are those of {section.program}.")
    yield f"{section.name}:"
    if section.program == "provgate":
        yield from _indented(_GRPC)
        yield ""
    yield from _indented(_of_settings(section.settings, KEY, option_names(section.settings, section.env_prefix)))


def _of_settings(settings: type[Settings], mark: str, names: dict[str, OptionNames], **examples: Any) -> Iterator[str]:
    for field in msgspec.structs.fields(settings):
        yield from _of_field(settings, field, mark, names.get(field.encode_name), examples)
        yield ""


def _of_field(
    settings: type[Settings], field: FieldInfo, mark: str, names: OptionNames | None, examples: dict[str, Any]
) -> Iterator[str]:
    hint = hints_of(settings)[field.name]
    yield from _prose(" ".join(_facts(field.encode_name, hint)))
    if names is not None:
        yield from _prose(_spelled(names))
    default = examples[field.encode_name] if field.encode_name in examples else _default(field)
    if isinstance(default, Settings):
        yield f"{mark}{field.encode_name}:"
        yield from _indented(_of_settings(type(default), mark, {}))
    elif field.encode_name == STORAGE_CONFIG and default is not None:
        yield from _of_storages()
    else:
        yield f"{mark}{field.encode_name}: {scalar(msgspec.to_builtins(default))}"


def _of_storages() -> Iterator[str]:
    for cls, mark, db in _STORAGES:
        settings = settings_of_storage(cls)
        if settings is None:
            yield from _prose(f"The keys of {cls} are not known here: pip install 'provgate[{cls}]'.")
            continue
        if mark == OTHER_KEY:
            yield f"# Or, with {mark} before each key since there can be one {STORAGE_CONFIG} only:"
        yield f"{mark}{STORAGE_CONFIG}:"
        yield from _indented([*_prose(_first_paragraph(settings)), f"{mark}cls: {cls}", ""])
        yield from _indented(_of_settings(settings, mark, {}, db=db))


def _facts(name: str, hint: Any) -> Iterator[str]:
    metas = list(_metas(hint))
    yield from (meta.description for meta in metas if meta.description)
    yield from _bounds(hint, metas)
    extra: dict[str, Any] = {key: value for meta in metas for key, value in (meta.extra or {}).items()}
    if "program_sets" in extra:
        yield f"Where not given, {extra['program_sets']}."
    if name in SECRETS:
        yield f"Or {name}_file: a file that holds it."


def _spelled(names: OptionNames) -> str:
    if not names.may_be_file:
        return f"{names.variable}, {names.flag}"
    return f"{names.variable}, {names.flag}; {names.variable}_FILE, {names.flag}-file"


def _bounds(hint: Any, metas: list[msgspec.Meta]) -> Iterator[str]:
    values = [value for each in _parts(hint) if get_origin(each) is Literal for value in get_args(each)]
    if values:
        yield f"One of {', '.join(map(str, values))}."
    for meta in metas:
        least, most, above = meta.ge, meta.le, meta.gt
        told = [f"more than {above:,}"] if above is not None else []
        told += [f"at least {least:,}"] if least is not None else []
        told += [f"at most {most:,}"] if most is not None else []
        if told:
            yield f"{', '.join(told).capitalize()}."


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    return (extra for part in _parts(hint) for extra in getattr(part, "__metadata__", ()) if _is_meta(extra))


def _is_meta(extra: object) -> bool:
    return isinstance(extra, msgspec.Meta)


def _parts(hint: Any) -> Iterator[Any]:
    """Yields a type and those that it is made of."""
    yield hint
    if get_origin(hint) is Literal:
        return
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    for each in inner:
        yield from _parts(each)


def _default(field: FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return None if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _first_paragraph(settings: type[Settings]) -> str:
    return " ".join((settings.__doc__ or "").partition("\n\n")[0].split())


def _prose(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _indented(lines: Any) -> Iterator[str]:
    return (f"{_STEP}{line}" for line in lines)
