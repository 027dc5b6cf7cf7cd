"""What tests of verbs share when a host is a folder (the fixture `folder_as_host`)."""

from pathlib import Path

import msgspec
import pytest

from generator.activation import commands, converge
from generator.errors import ActivationFailed
from generator.reporting.report import Outcome
from generator.state import record
from generator.verbs import apply as verb
from generator.verbs.options import Options
from tests.strategies import encoded


def etc_files(root: Path) -> dict[str, bytes]:
    """Return every file below etc/, ours or not: its path from the root, and its content."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted((root / "etc").rglob("*"))
        if file.is_file()
    }


def apply(document: object, options: Options, **changes: object) -> Outcome:
    """Apply a document, with some of the options changed."""
    changed = msgspec.structs.replace(options, **changes)
    return verb.apply(encoded(document), changed, commands.silent, commands.silent)


def generation(options: Options) -> int:
    """Return the generation that the host has."""
    applied = record.read(options.root)
    return applied.target.generation if applied else 0


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next activation fail; going back works."""
    steps = iter([True])

    def converge_or_fail(*_: object) -> list[str]:
        if next(steps, False):
            raise ActivationFailed("guard: session ens4 is not Established, but was before")
        return []

    monkeypatch.setattr(converge, "converge", converge_or_fail)
