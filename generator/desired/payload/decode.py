"""Decodes bytes into a typed document, and finds every problem of form with its place.

msgspec decodes a good document in one step. Only a document with a problem is walked here, element
by element, so that all problems are named and the sound elements are checked further.
"""

import json
import types
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, UnsetType

from generator.desired import plain_yaml
from generator.desired.payload.values import Password
from generator.errors import Problem, Problems, Refused, did_you_mean, printable
from generator.secrets import MASKED

MAX_BYTES = 64 << 20
MAX_YAML_BYTES = 8 << 20  # reading YAML takes a hundred times as long as JSON
_MAX_DEPTH = 32
_TOO_DEEP = f"the payload is nested more than {_MAX_DEPTH} deep"
# Cc ends a line or drives a terminal, Zl and Zp end a line, Cs can't be written as UTF-8.
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
_UNSAFE_RULE = "has a control or line-ending character"
_ILL_FORMED = (msgspec.ValidationError, ValueError, TypeError, OverflowError)
_BAD: Any = object()
_NOT_INT = "is not a whole number"
_NOT_BOOL = "is not true or false"
_NOT_TEXT = {_NOT_INT, _NOT_BOOL}
_INSIDE = (dict, list)
_OF_A_FLEET = {"hosts", "labels", "serverClusters", "serverClusterTemplates"}
_ONLY_IN_A_FLEET = "only a Fleet has it"

Sections = dict[str, Any]


class _Repeated(dict[str, Any]):
    """An object that has a key more than once."""

    keys_twice: list[str]


def parse(data: bytes) -> tuple[Any, Problems]:
    """Parse JSON or YAML text. Refuse repeated keys, NaN and documents that are too large.

    Text that begins with a brace or a bracket is JSON.
    """
    if len(data) > MAX_BYTES:
        raise Refused("the payload is larger than 64 MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"the payload is not UTF-8: byte {error.start} ({error.reason})") from None
    start = text.lstrip()[:1]
    if not start:
        raise Refused("the payload is empty")
    raw, suspicious = _json(text) if start in "{[\ufeff" else (_yaml(text, len(data)), True)
    if _is_deep(raw):
        raise Refused(_TOO_DEEP)
    problems = Problems()
    if suspicious:
        _scan(raw, "", problems)
    return raw, problems


def _json(text: str) -> tuple[Any, bool]:
    """Return the value of JSON text, and whether it may have repeated keys or unsafe characters."""
    is_repeated = False

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal is_repeated
        fields = _collect(pairs)
        is_repeated |= isinstance(fields, _Repeated)
        return fields

    # JSON refuses raw control characters except DEL. So text without a backslash can only have
    # that one, and the few unsafe characters above ASCII.
    suspicious = "\\" in text or "\x7f" in text or (not text.isascii() and _unsafe(text))
    try:
        raw = json.loads(text, object_pairs_hook=collect, parse_constant=_no_constant)
    except RecursionError:
        raise Refused(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refused(f"the payload is not JSON: {error.msg} at {where}") from None
    except ValueError as error:
        raise Refused(f"the payload is not JSON: {printable(str(error))}") from None
    return raw, suspicious or is_repeated


def _yaml(text: str, size: int) -> Any:
    """Return the value of YAML text."""
    if size > MAX_YAML_BYTES:
        limit = MAX_YAML_BYTES >> 20
        hint = "JSON may be 64 MiB, and is read much faster"
        raise Refused(Problem("", "", f"the payload is YAML of more than {limit} MiB", hint))
    try:
        return plain_yaml.read(text, _collect, _MAX_DEPTH)
    except plain_yaml.TooDeep:
        raise Refused(_TOO_DEEP) from None
    except plain_yaml.NotPlain as error:
        rule = f"the payload {error}"
        hint = "a payload is one document of YAML 1.2, without anchors, aliases and tags"
        raise Refused(Problem("", "", rule, hint)) from None
    except plain_yaml.NotYaml as error:
        raise Refused(f"the payload is not YAML: {error}") from None


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object from its keys and values; `_Repeated` if it has a key twice."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    repeated = _Repeated(fields)
    times = Counter(name for name, _ in pairs)
    repeated.keys_twice = sorted(name for name, count in times.items() if count > 1)
    return repeated


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unsafe(text: str) -> bool:
    return any(unicodedata.category(c) in _UNSAFE for c in text if c not in "\t\r\n")


def _is_deep(raw: Any) -> bool:
    level: list[Iterable[Any]] = [[raw]]
    for _ in range(_MAX_DEPTH + 1):
        nodes = [node for inside in level for node in inside]
        level = [n.values() if isinstance(n, dict) else n for n in nodes if isinstance(n, _INSIDE)]
    return bool(level)


def _scan(raw: Any, place: str, problems: Problems) -> None:
    """Find unsafe characters and repeated keys anywhere in a document, ignored fields included."""
    if isinstance(raw, str):
        if any(unicodedata.category(c) in _UNSAFE for c in raw):
            problems.append(Problem(place, printable(raw), _UNSAFE_RULE))
    elif isinstance(raw, list):
        for index, item in enumerate(raw):
            _scan(item, f"{place}[{index}]", problems)
    elif isinstance(raw, dict):
        if isinstance(raw, _Repeated):
            problems.extend(
                Problem(_under(place, name), "", "stands here more than once")
                for name in raw.keys_twice
            )
        for name, item in raw.items():
            if any(unicodedata.category(c) in _UNSAFE for c in name):
                problems.append(Problem(_under(place, name), "", _UNSAFE_RULE))
            _scan(item, _under(place, name), problems)


def shown(value: Any, *, quoted: bool = False) -> str:
    """Return a value for a message: as JSON, but plain text where text is expected."""
    plain = isinstance(value, str) and value and not quoted
    return printable(value if plain else json.dumps(value, ensure_ascii=False))


def _under(place: str, name: str) -> str:
    name = printable(name)
    return f"{place}.{name}" if place else name


def _hook(type_: type[Any], value: object) -> Any:
    return type_.parse(value)


def convert(raw: Any, type_: type[msgspec.Struct], place: str, problems: Problems) -> Sections:
    """Return the fields of a document or a Fleet host by name; adds what is wrong to `problems`.

    A field that has a problem is absent. In a list a bad element is None, so that the others keep
    their places.
    """
    try:
        return msgspec.structs.asdict(msgspec.convert(raw, type_, dec_hook=_hook, strict=True))
    except _ILL_FORMED:
        return _walk_fields(raw, type_, place, problems, top=True)


def _walk(raw: Any, type_: Any, place: str, problems: Problems, *, top: bool = False) -> Any:
    """Decode one value; if it is wrong add a problem and return `_BAD`."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        before = len(problems)
        values = _walk_fields(raw, type_, place, problems)
        return type_(**values) if len(problems) == before else _BAD
    if get_origin(type_) in {types.UnionType, Union}:
        (type_,) = (option for option in get_args(type_) if option is not UnsetType)
        return _walk(raw, type_, place, problems)
    if get_origin(type_) is dict:
        return _walk_values(raw, type_, place, problems)
    if get_origin(type_) is list:
        return _walk_elements(raw, type_, place, problems, top=top)
    try:
        return msgspec.convert(raw, type_, dec_hook=_hook, strict=True)
    except _ILL_FORMED as error:
        rule = _rule(type_, raw, error)
        value = MASKED if type_ is Password else shown(raw, quoted=rule in _NOT_TEXT)
        problems.append(Problem(place, value, rule))
        return _BAD


def _walk_elements(raw: Any, type_: Any, place: str, problems: Problems, *, top: bool) -> Any:
    if not isinstance(raw, list):
        problems.append(Problem(place, shown(raw, quoted=True), "is not a list"))
        return _BAD
    (item,) = get_args(type_)
    walked = [_walk(r, item, f"{place}[{i}]", problems) for i, r in enumerate(raw)]
    return [None if value is _BAD else value for value in walked] if top else walked


def _walk_values(raw: Any, type_: Any, place: str, problems: Problems) -> Any:
    """Decode an object whose keys are names that the payload chooses."""
    if not isinstance(raw, dict):
        problems.append(Problem(place, shown(raw, quoted=True), "is not an object"))
        return _BAD
    _, item = get_args(type_)
    return {name: _walk(r, item, _under(place, name), problems) for name, r in raw.items()}


def _walk_fields(
    raw: Any, type_: type[msgspec.Struct], place: str, problems: Problems, *, top: bool = False
) -> Sections:
    if not isinstance(raw, dict):
        problems.append(Problem(place, shown(raw, quoted=True), "is not an object"))
        return {}
    fields = _fields(type_)
    config = type_.__struct_config__
    for name in raw if config.forbid_unknown_fields else ():
        if name not in fields and name != config.tag_field:
            hint = _ONLY_IN_A_FLEET if name in _OF_A_FLEET else did_you_mean(name, fields)
            rule = "is not a field that is known here"
            problems.append(Problem(_under(place, name), "", rule, hint))
    values = {}
    for name, field in fields.items():
        if name in raw:
            value = _walk(raw[name], field.type, _under(place, name), problems, top=top)
            if value is not _BAD:
                values[field.name] = value
        elif field.required:
            problems.append(Problem(_under(place, name), "", "is required"))
        elif top:
            default = field.default_factory if field.default is NODEFAULT else None
            values[field.name] = default() if callable(default) else field.default
    return values


@cache
def _fields(type_: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(type_)}


def _rule(type_: Any, raw: Any, error: Exception) -> str:
    """Return the rule that a leaf's value breaks, in the words of its type."""
    if get_origin(type_) is Literal:
        options = get_args(type_)
        return f"is not {' or '.join(options)}"
    if type_ is bool:
        return _NOT_BOOL
    if get_origin(type_) is Annotated:
        base, meta = get_args(type_)[0], next(a for a in get_args(type_) if isinstance(a, Meta))
        if base is int:
            whole = isinstance(raw, int) and not isinstance(raw, bool)
            return f"is not in {meta.ge}–{meta.le}" if whole else _NOT_INT
        if not isinstance(raw, str):
            return "is not a string"
        return str((meta.extra or {})["rule"])
    return str(error.__cause__ or error)
