"""Whatever a controller, or someone in its place, sends: an answer in words, never a traceback."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from generator.errors import Problem, Refused
from generator.payload import Payload, load
from generator.payload.schema import schema
from tests.profiles import rounds
from tests.strategies import HOSTILE_NAMES, documents, encoded, host, json_values, mutants, vpc

SCHEMA = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def told(problem: Problem) -> None:
    """A problem is one printable line, and it says something."""
    text = str(problem)
    assert text.strip()
    assert text.isprintable(), ascii(text)
    assert len(text) < 2000


def answered(data: bytes) -> Payload | None:
    """What `load` makes of it; that it raises nothing but `Refused` is what is tested."""
    found: Payload | None = None
    try:
        found = load(data)
        said = found.warnings
    except Refused as refused:
        said = refused.problems
    assert found or said
    for problem in said:
        told(problem)
    return found


@settings(max_examples=rounds(short=75, long=1500))
@given(st.binary() | st.text().map(str.encode))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example("{}".encode("utf-16"))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'"\\ud800"')
def test_any_bytes_get_an_answer(data: bytes) -> None:
    """Bytes that are not even JSON are refused in words."""
    assert answered(data) is None


@settings(max_examples=rounds(short=75, long=1500))
@given(json_values, st.sampled_from([{}, {"kind": "Host"}, {"kind": "Fleet", "hosts": [{}]}]))
@example(["\ud800"], {"kind": "Host"})
@example({"kind": ["\ud800"]}, {})
def test_any_json_gets_an_answer(value: object, around: dict[str, object]) -> None:
    """JSON that is no payload is refused in words, at the top and in every section."""
    answered(encoded(value))
    if isinstance(value, dict):
        answered(encoded(around | value))
    for section in ("server", "links", "vpcs", "vnets", "hosts", "generation"):
        answered(encoded(around | {section: value}))
        answered(encoded(around | {section: [value]}))


@settings(max_examples=rounds(short=100, long=2000))
@given(mutants())
def test_any_mistake_in_a_document_gets_an_answer(data: bytes) -> None:
    """An accepted document with anything changed in it is accepted or refused, in words."""
    found = answered(data)
    if found is not None:
        SCHEMA.validate(json.loads(data))


@settings(max_examples=rounds(short=50, long=600))
@given(documents())
def test_every_generated_document_is_accepted(document: dict[str, object]) -> None:
    """The strategy `documents` gives accepted documents; the JSON Schema accepts them too."""
    found = answered(encoded(document))
    assert found is not None
    assert found.kind == "Host"
    SCHEMA.validate(document)


@pytest.mark.parametrize(
    "raw",
    ["a\nb", "\x1b[2J", "\x7f", "\x9b31m", "\u2028", "\u2029", "\x85", "\ud800", "\r"],
    ids=ascii,
)
@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "raw"])
def test_unsafe_characters_are_refused_wherever_they_stand(raw: str, escaped: bool) -> None:
    """In a value, a key, an ignored field or a nested one; written as an escape or raw."""
    for document in (
        host(server=host()["server"] | {"name": raw}),
        host(vpcs=[{"id": 26, "name": raw}, {"id": 33, "name": raw}]),
        host(customData=raw),
        host(customData=[{"deep": [raw]}]),
        host(customData={raw: 1}),
        host(**{raw: 1}),
    ):
        text = json.dumps(document, ensure_ascii=escaped)
        assert answered(text.encode(errors="surrogatepass")) is None


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_trouble_other_programs_are_names(name: str) -> None:
    """Quotes, backslashes, templates and comment signs are legal in names: a tenant chose them."""
    assert answered(encoded(host(vpcs=[vpc(26, name=name), vpc(33)])))
