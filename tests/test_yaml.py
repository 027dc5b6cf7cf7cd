"""A payload in YAML is the payload that JSON would be, and YAML that is not plain is refused."""

import contextlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.desired import plain_yaml
from generator.desired.payload import load
from generator.desired.payload.decode import MAX_YAML_BYTES
from tests.counting import instructions
from tests.profiles import rounds
from tests.strategies import LEAF1, Json, as_yaml, documents, encoded, host, refusals, tagged, vnet

HERE = Path(__file__).parent
K8S01 = HERE.parent / "examples/k8s01.json"


def read(text: str) -> Any:
    return plain_yaml.read(text, dict, 32)


@settings(max_examples=rounds(short=25, long=400))
@given(documents())
def test_a_payload_is_the_same_in_yaml(document: Json) -> None:
    """Every accepted document, hostile names and passwords included."""
    assert load(as_yaml(document)).hosts == load(encoded(document)).hosts


def test_the_example_is_the_same_in_yaml() -> None:
    """The example gives the same payload in YAML, with a comment and an end mark."""
    document = json.loads(K8S01.read_bytes())
    text = b"# K8S01\n---\n" + as_yaml(document) + b"...\n"
    assert load(text).hosts == load(K8S01.read_bytes()).hosts


def test_reads_scalars_as_yaml_1_2_does() -> None:
    """No date, no number to the base 60, no `yes`: what JSON does not have is text."""
    values = "[~, null, '', True, no, on, 017, 0o17, 0x1F, -3, 1.5, 1e3, 1_000, 12:30, 2026-11-28]"
    assert read(values) == [
        *(None, None, "", True, "no", "on", 17, 15, 31, -3, 1.5, 1000.0),
        *("1_000", "12:30", "2026-11-28"),
    ]
    assert read("44:38:39:00:00:26") == "44:38:39:00:00:26"
    assert read("26: a\ntrue: b\n~: c\n") == {"26": "a", "true": "b", "~": "c"}
    assert read("'26'") == read('"26"') == read("|-\n  26\n") == "26"


REFUSED = {
    "an anchor": ("kind: &a Host\n", "has an anchor (&a) at line 1"),
    "an alias": ("kind: Host\nserver: *a\n", "has an alias (*a) at line 2"),
    "a tag": ("kind: Host\ngeneration: !!int '1'\n", "has a tag (tag:yaml.org,2002:int) at line 2"),
    "a tag of Python": ("!!python/object:os.system {}\n", "has a tag"),
    "a line for tags": ("%TAG ! tag:example,2000:\n---\nkind: Host\n", "has a %TAG line"),
    "a second document": ("kind: Host\n---\nkind: Host\n", "has a second document at line 2"),
    "an older version": ("%YAML 1.1\n---\nkind: Host\n", "is YAML 1.1, not 1.2"),
    "a list as a key": ("? [a]\n: 1\n", "has a list or an object as a key at line 1"),
    "a wrong indent": ("a:\n  - b\n c: 1\n", "is not YAML: expected <block end>"),
    "a control character": ("a: \x07\n", "is not YAML: unacceptable character #x0007"),
    "a number of 5,000 digits": (f"a: {'9' * 5000}\n", "is not YAML: a number of 5000 digits"),
    "text": ("kind Host\n", 'payload: "kind Host" is not an object'),
    "a comment": ("# nothing\n", "payload: null is not an object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_is_not_plain(name: str) -> None:
    """YAML that is not plain is one problem, with its line."""
    text, expected = REFUSED[name]
    (problem,) = refusals(text.encode())
    assert expected in problem
    assert problem.isprintable()


def test_names_repeated_keys_with_their_places() -> None:
    """Repeated keys are problems like those of JSON, with their places."""
    text = as_yaml(host(vnet(26, mtu=1), customData={"a": 1})).decode()
    text = text.replace("kind: Host\n", "kind: Host\ngeneration: 4\n")
    text = text.replace("  a: 1\n", "  a: 1\n  a: 1\n")
    places = [problem.split(": ")[0] for problem in refusals(text.encode())]
    assert sorted(places) == ["customData.a", "generation", "vnets[1].mtu"]


def test_nesting_is_bounded_as_in_json() -> None:
    """The bound ends the reading: a million brackets cost no more than forty."""
    deep = ["the payload is nested more than 32 deep"]
    for levels in (33, 1_000_000):
        assert refusals(f"a: {'[' * levels}{']' * levels}".encode()) == deep
        assert refusals(b"- " * levels) == deep
    assert refusals(f"kind: Host\ncustomData: {'[' * 30}{']' * 30}".encode()) != deep


def test_its_size_is_bounded() -> None:
    """YAML is read slowly, so less of it is read than of JSON."""
    large = b"# " + b"x" * MAX_YAML_BYTES
    assert refusals(large) == [
        "the payload is YAML of more than 8 MiB (JSON may be 64 MiB, and is read much faster)"
    ]


def _lines(count: int) -> bytes:
    return as_yaml(host(*(vnet(100 + n, ports=tagged(LEAF1)) for n in range(count))))


def _flow(count: int) -> bytes:
    return b"kind: Host\ncustomData: [" + b"a," * count + b"a]\n"


def _long_text(count: int) -> bytes:
    return b"kind: Host\ncustomData: |\n" + b"  x\n" * count


def _keys(count: int) -> bytes:
    return b"kind: Host\n" + b"".join(b"k%d: 1\n" % n for n in range(count)) + b"k0: 1\n"


@pytest.mark.parametrize("text", [_lines, _flow, _long_text, _keys])
def test_work_grows_with_the_text(text: Any) -> None:
    """Four times the text is about four times the work."""
    few, many = (partial(refusals, text(count)) for count in (50, 200))
    few()  # imports and caches of the first call do not count
    assert instructions(many) < 5 * instructions(few)


@settings(max_examples=rounds(short=200, long=4000))
@given(st.text(st.sampled_from(list(" \n\t:-?[]{},#&*!|>'\"%@`~ab1.")), max_size=60))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    """Nothing but the two errors of the module is raised."""
    with contextlib.suppress(plain_yaml.NotYaml, plain_yaml.NotPlain):
        read(text)
    assert all(problem.isprintable() for problem in refusals(b"- " + text.encode()))


def test_json_needs_no_yaml() -> None:
    """The library takes longer to import than a payload takes to read."""
    program = (
        "import sys; from pathlib import Path; from generator.desired.payload import load;"
        f"load(Path({str(K8S01)!r}).read_bytes()); print('ruamel' in str(sorted(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=HERE.parent,
    )  # fmt: skip
    assert result.stdout.strip() == "False"
