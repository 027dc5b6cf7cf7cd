"""Reads plain YAML 1.2: one document, without anchors, aliases and tags, and of bounded depth.

An alias could stand for gigabytes, and a tag for any object. Scalars follow the core schema of
YAML 1.2 (10.3.2), which agrees with JSON: `no`, `12:30` and a date are text.
"""

import re
from collections.abc import Callable
from typing import Any

from generator.errors import printable

Pairs = list[tuple[str, Any]]

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_BASES = {"0o": 8, "0x": 16}
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class NotYaml(ValueError):
    """The text is not YAML; the message says what is wrong, and where."""


class NotPlain(ValueError):
    """The text is YAML that is not plain; the message says why, and where."""


class TooDeep(NotPlain):
    """The text is nested deeper than is allowed."""


class _Open:
    """A list or an object whose end has not been read yet."""

    def __init__(self, *, is_list: bool) -> None:
        self.is_list = is_list
        self.items: list[Any] = []
        self.key: str | None = None
        self.pairs: Pairs = []


def read(text: str, collect: Callable[[Pairs], Any], max_depth: int) -> Any:
    """Return the value of a text. `collect` makes an object from its keys and values.

    Raises `NotYaml` or `NotPlain`.
    """
    from ruamel.yaml import YAML  # noqa: PLC0415  # a payload in JSON does not need it
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415

    try:
        return _build(YAML(typ="safe", pure=True).parse(text), collect, max_depth)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or error.context or "it can't be read"
        raise NotYaml(f"{printable(reason, 200)}{where}") from None
    except (YAMLError, RecursionError) as error:
        raise NotYaml(printable(str(error).partition("\n")[0], 200)) from None


def _build(events: Any, collect: Callable[[Pairs], Any], max_depth: int) -> Any:
    """Build the value that a parser's events describe."""
    open_: list[_Open] = []
    values: list[Any] = []
    for event in events:
        kind = type(event).__name__
        line = event.start_mark.line + 1
        if kind == "DocumentStartEvent":
            _check_document(event, line, is_first=not values)
            continue
        _check_plain(event, kind, line)
        if kind in {"SequenceStartEvent", "MappingStartEvent"}:
            if open_ and not open_[-1].is_list and open_[-1].key is None:
                raise NotPlain(f"has a list or an object as a key at line {line}")
            open_.append(_Open(is_list=kind == "SequenceStartEvent"))
            if len(open_) > max_depth:
                raise TooDeep(f"is nested more than {max_depth} deep at line {line}")
        elif kind == "ScalarEvent" and open_ and not open_[-1].is_list and open_[-1].key is None:
            open_[-1].key = event.value
        elif kind in {"ScalarEvent", "SequenceEndEvent", "MappingEndEvent"}:
            value = _scalar(event, line) if kind == "ScalarEvent" else _close(open_.pop(), collect)
            _place(value, open_, values)
    return values[0] if values else None


def _check_document(event: Any, line: int, *, is_first: bool) -> None:
    if not is_first:
        raise NotPlain(f"has a second document at line {line}")
    if event.tags:
        raise NotPlain("has a %TAG line")
    if event.version and tuple(event.version) != (1, 2):
        version = ".".join(map(str, event.version))
        raise NotPlain(f"is YAML {version}, not 1.2")


def _check_plain(event: Any, kind: str, line: int) -> None:
    if kind == "AliasEvent":
        raise NotPlain(f"has an alias (*{printable(event.anchor)}) at line {line}")
    if getattr(event, "anchor", None):
        raise NotPlain(f"has an anchor (&{printable(event.anchor)}) at line {line}")
    if getattr(event, "tag", None):
        raise NotPlain(f"has a tag ({printable(str(event.tag))}) at line {line}")


def _close(value: _Open, collect: Callable[[Pairs], Any]) -> Any:
    return value.items if value.is_list else collect(value.pairs)


def _place(value: Any, open_: list[_Open], values: list[Any]) -> None:
    """Put a value where it belongs: into a list, beside its key, or at the top."""
    if not open_:
        values.append(value)
    elif open_[-1].is_list:
        open_[-1].items.append(value)
    else:
        open_[-1].pairs.append((open_[-1].key or "", value))
        open_[-1].key = None


def _scalar(event: Any, line: int) -> Any:
    text: str = event.value
    if event.style:  # in quotes, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _WHOLE.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text[2:], _BASES[text[:2]])
    except ValueError:
        raise NotYaml(f"a number of {len(text)} digits at line {line}") from None
    return float(text) if _DECIMAL.fullmatch(text) else text
