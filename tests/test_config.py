"""Whatever is in the place of config.yaml, there is a message and no harm."""

import os
from pathlib import Path

import pytest

from generator.controller import config
from generator.controller.config import Config
from generator.errors import Refused

BAD: dict[str, tuple[str | bytes, str]] = {
    "a quote without end": ("host: 'a\n", "is not YAML"),
    "a setting twice": ("host: a\nretries: 1\nhost: b\n", "host: stands here more than once"),
    "YAML 1.1": ("%YAML 1.1\n---\nhost: a\n", "is not plain YAML"),
    "a tag": ("host: !!int abc\n", "is not plain YAML"),
    "a number of 6,000 digits": (f"retries: {'9' * 6000}\n", "is not YAML"),
    "an alias": ("a: &x [1]\nb: *x\n", "is not plain YAML"),
    "an alias bomb": (
        "a: &a [1, 1]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in ("ab", "bc", "cd")),
        "is not plain YAML",
    ),
    "deep nesting": ("[" * 40 + "]" * 40, "is not plain YAML"),
    "70,000 characters": (f"host: {'x' * 70000}\n", "is larger than 64 KiB"),
    "no UTF-8": (b"host: \xff\n", "is not UTF-8"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the place of a host's config.yaml."""
    place = tmp_path / config.PATH
    place.parent.mkdir(parents=True)
    return place


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named(name: str, file: Path, tmp_path: Path) -> None:
    """The message names the file and what is wrong with it."""
    content, message = BAD[name]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Refused, match=f"^/etc/evpn-host/config.yaml: .*{message}"):
        config.load(tmp_path)


def test_waits_for_no_pipe(file: Path, tmp_path: Path) -> None:
    """A pipe into which nobody writes would keep us waiting for ever."""
    os.mkfifo(file)
    with pytest.raises(Refused, match="is not a regular file"):
        config.load(tmp_path)


def test_reads_settings(file: Path, tmp_path: Path) -> None:
    """An empty file has the defaults."""
    file.write_text("")
    assert config.load(tmp_path) == Config()
    file.write_text("host: K8S01\nretries: 2\ntimeout: 3.5\nbackend: ifupdown\n")
    expected = Config(host="K8S01", retries=2, timeout=3.5, backend="ifupdown")
    assert config.load(tmp_path) == expected
