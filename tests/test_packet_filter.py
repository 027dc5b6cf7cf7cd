"""A host without a packet filter is remembered until its tools change."""

from pathlib import Path

import pytest

from generator.observed import filter as packet_filter
from generator.state import unfiltered


def a_tool(folder: Path) -> str:
    """Return a folder for PATH that has an nft in it."""
    folder.mkdir()
    (folder / "nft").write_text("#!/bin/sh\nexit 1\n")
    (folder / "nft").chmod(0o755)
    return str(folder)


def test_is_the_same_with_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cron's other PATH changes nothing. Once nft comes or goes, the filter is tried again."""
    monkeypatch.setenv("PATH", a_tool(tmp_path / "sbin"))
    unfiltered.write(tmp_path, packet_filter.refusal("no nftables in this kernel"))
    assert packet_filter.limits(tmp_path) == "no nftables in this kernel"
    monkeypatch.setenv("PATH", a_tool(tmp_path / "bin"))
    assert packet_filter.limits(tmp_path) == "no nftables in this kernel"
    monkeypatch.setenv("PATH", "")
    assert not packet_filter.limits(tmp_path)
