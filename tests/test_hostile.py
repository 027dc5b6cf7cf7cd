"""Whatever a controller or an impostor sends, `load` answers in words, never by a traceback."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from generator.desired.payload import Payload, load
from generator.desired.payload.schema import schema
from generator.errors import Problem, Refused
from tests.profiles import rounds
from tests.strategies import HOSTILE_NAMES, documents, encoded, host, json_values, mutants, vpc

SCHEMA = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def check_message(problem: Problem) -> None:
    """Check that a problem is one printable line that says something."""
    text = str(problem)
    assert text.strip()
    assert text.isprintable(), ascii(text)
    assert len(text) < 2000


def answer_to(data: bytes) -> Payload | None:
    """Return the payload that `load` reads, or None; fail if it raises anything but `Refused`."""
    payload: Payload | None = None
    try:
        payload = load(data)
        problems = payload.warnings
    except Refused as refused:
        problems = refused.problems
    assert payload or problems
    for problem in problems:
        check_message(problem)
    return payload


@settings(max_examples=rounds(short=75, long=1500))
@given(st.binary() | st.text().map(str.encode))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example("{}".encode("utf-16"))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'"\\ud800"')
def test_refuses_any_bytes_in_words(data: bytes) -> None:
    """`load` refuses bytes in words that are not even JSON."""
    assert answer_to(data) is None


@settings(max_examples=rounds(short=75, long=1500))
@given(json_values, st.sampled_from([{}, {"kind": "Host"}, {"kind": "Fleet", "hosts": [{}]}]))
@example(["\ud800"], {"kind": "Host"})
@example({"kind": ["\ud800"]}, {})
def test_answers_any_json_in_words(value: object, around: dict[str, object]) -> None:
    """`load` answers any JSON in words, at the top and in every section."""
    answer_to(encoded(value))
    if isinstance(value, dict):
        answer_to(encoded(around | value))
    for section in ("server", "links", "vpcs", "vnets", "hosts", "generation"):
        answer_to(encoded(around | {section: value}))
        answer_to(encoded(around | {section: [value]}))


@settings(max_examples=rounds(short=100, long=2000))
@given(mutants())
def test_answers_any_mistake_in_a_document_in_words(data: bytes) -> None:
    """An accepted document with any change is accepted, or refused in words."""
    payload = answer_to(data)
    if payload is not None:
        SCHEMA.validate(json.loads(data))


@settings(max_examples=rounds(short=50, long=600))
@given(documents())
def test_every_generated_document_is_accepted(document: dict[str, object]) -> None:
    """`load` and the JSON Schema accept every document of the strategy `documents`."""
    payload = answer_to(encoded(document))
    assert payload is not None
    assert payload.kind == "Host"
    SCHEMA.validate(document)


@pytest.mark.parametrize(
    "raw",
    ["a\nb", "\x1b[2J", "\x7f", "\x9b31m", "\u2028", "\u2029", "\x85", "\ud800", "\r"],
    ids=ascii,
)
@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "raw"])
def test_unsafe_characters_are_refused_wherever_they_stand(raw: str, escaped: bool) -> None:
    """They are refused in values, keys and ignored fields, at any depth, escaped or raw."""
    for document in (
        host(server=host()["server"] | {"name": raw}),
        host(vpcs=[{"id": 26, "name": raw}, {"id": 33, "name": raw}]),
        host(customData=raw),
        host(customData=[{"deep": [raw]}]),
        host(customData={raw: 1}),
        host(**{raw: 1}),
    ):
        text = json.dumps(document, ensure_ascii=escaped)
        assert answer_to(text.encode(errors="surrogatepass")) is None


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_trouble_other_programs_are_names(name: str) -> None:
    """A tenant may have quotes, backslashes, templates and comment signs in a name."""
    assert answer_to(encoded(host(vpcs=[vpc(26, name=name), vpc(33)])))
