"""`review --html`: a page that opens from a file, and in which a payload is only text."""

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.verbs import review_page
from lab.result import Result
from tests import fabrics
from tests.debs import browser
from tests.strategies import LEAF1, LEAF2, Json, encoded, host, server, tagged, vnet
from tests.test_fleet_status import post

Command = Callable[..., Result]
PORTS = tagged(LEAF1, LEAF2)


def page(evpn_host: Command, folder: Path, old: Json, new: Json, *options: str) -> str:
    """Return the page of a review of two payloads."""
    for name, document in (("old.json", old), ("new.json", new)):
        (folder / name).write_bytes(encoded(document))
    sources = folder / "old.json", folder / "new.json"
    result = evpn_host("review", *sources, "--html", folder / "page.html", *options)
    assert result.code in {0, 1}, result.err
    return (folder / "page.html").read_text()


def data(text: str) -> dict[str, Any]:
    """Return the data of a page."""
    match = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert match
    return dict(json.loads(match[1]))


def test_shows_what_changes_on_which_host(evpn_host: Command, tmp_path: Path) -> None:
    """The page has hosts with leaves, VPCs and V-Nets, changes, removed uplinks, and files."""
    shown = data(page(evpn_host, tmp_path, fabrics.before(), fabrics.after()))
    assert shown["summary"] == "484 of 500 hosts unchanged"
    hosts = {each["name"]: each for each in shown["hosts"]}
    assert len(hosts) == 500
    states = [each["state"] for each in hosts.values()]
    assert (states.count("same"), states.count("changed")) == (484, 16)
    links = [(nic, shown["leaves"][leaf], state) for nic, leaf, state in hosts["srv0042"]["links"]]
    assert links == [("ens4", "leaf3", "same"), ("ens5", "leaf4", "removed")]
    changes = {each["text"]: each for each in shown["changes"]}
    removed = changes["- uplink ens5 (swp11@leaf4)"]
    assert removed["risks"] == ["leaves one session"]
    assert [shown["hosts"][n]["name"] for n in removed["hosts"]] == ["srv0042"]
    own = [shown["vnets"][n] for n in shown["sets"][hosts["srv0007"]["set"]]]
    assert [4155, "red-new", 33, 1500, ["10.50.5.254/24"]] in own
    assert [33, "red", 1033] in shown["vpcs"]
    most = shown["files"][0]
    assert (most["path"], len(most["hosts"])) == ("/etc/netplan/60-evpn-host.yaml", 12)
    assert '-        - "10.50.2.254/24"' in most["lines"]
    assert '+        - "10.50.2.1/24"' in most["lines"]


def test_a_removed_host_is_shown_as_it_was(evpn_host: Command, tmp_path: Path) -> None:
    """A new host is shown, and a removed one as it was."""
    both = fabrics.before(3)
    one = copy.deepcopy(both)
    del one["hosts"][1]
    for old, new, state in ((both, one, "removed"), (one, both, "added")):
        shown = data(page(evpn_host, tmp_path, old, new))
        node = next(each for each in shown["hosts"] if each["name"] == "srv0001")
        assert node["state"] == state
        assert [link[2] for link in node["links"]] == ["same", "same"]
        assert shown["sets"][node["set"]]


def test_a_host_of_a_rendered_tree_is_read_back(evpn_host: Command, tmp_path: Path) -> None:
    """A host is read back from its files; if that fails, the page shows the files."""
    for name, document in (("a", fabrics.before(3)), ("b", fabrics.before(3))):
        (tmp_path / f"{name}.json").write_bytes(encoded(document))
        result = evpn_host("render", "-p", tmp_path / f"{name}.json", "-o", tmp_path / name)
        assert result.code == 0
    edited = tmp_path / "b/srv0001/etc/frr/frr.conf"
    edited.write_text(edited.read_text() + "! by hand\n")
    result = evpn_host("review", tmp_path / "a", tmp_path / "b", "--html", tmp_path / "page.html")
    assert result.code == 1
    shown = data((tmp_path / "page.html").read_text())
    known = {each["name"]: each["asn"] for each in shown["hosts"]}
    assert known == {"srv0000": 4200000100, "srv0001": 0, "srv0002": 4200000102}
    assert [each["path"] for each in shown["files"]] == ["/etc/frr/frr.conf"]
    assert "+! by hand" in shown["files"][0]["lines"]


def test_no_text_is_html(
    evpn_host: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name ends the element with the data, and the page may fetch nothing."""
    monkeypatch.chdir(tmp_path)
    source = Path("<script><img src=x onerror=alert(1)>.json")
    name = "</script><img src=x>"
    source.write_bytes(encoded(host(vnet(26, name=name, ports=PORTS))))
    result = evpn_host("review", source, source, "--html", tmp_path / "page.html")
    assert result.code == 0
    text = (tmp_path / "page.html").read_text()
    assert data(text)["old"] == str(source)
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["']?https?:|@import|url\(|innerHTML""", text)


def test_the_page_has_no_password(evpn_host: Command, tmp_path: Path) -> None:
    """A password that changes is in no part of the page."""
    old_page, new_page = (
        host(vnet(26, name="red", ports=PORTS), server=server(bgp={"password": word}))
        for word in ("secret-one", "secret-two")
    )
    text = page(evpn_host, tmp_path, old_page, new_page)
    assert "another password" in text
    assert "secret-" not in text


def test_more_differences_than_there_is_room_for(
    evpn_host: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differences of most hosts are shown, and the rest is counted."""
    whole = data(page(evpn_host, tmp_path, fabrics.before(), fabrics.after()))
    monkeypatch.setattr(review_page, "_ROOM", 1000)
    cut = data(page(evpn_host, tmp_path, fabrics.before(), fabrics.after()))
    assert cut["files"] == whole["files"][: len(cut["files"])]
    assert len(cut["files"]) + cut["left_out"] == len(whole["files"])
    assert cut["left_out"]


def reports(folder: Path) -> Path:
    """Return a folder with the reports of two hosts of the fleet, and one that is none."""
    post(folder, "srv0007", generation=1)
    post(folder, "srv0042", health="down", health_reason="no <b>session</b>", generation=0)
    (folder / "srv0103.json").write_text("{")
    for file in folder.iterdir():
        file.touch()
    return folder


def test_the_page_has_the_reports_of_hosts(evpn_host: Command, tmp_path: Path) -> None:
    """The page has the reports of hosts, and names hosts without one; without reports, nothing."""
    document = fabrics.before()
    assert data(page(evpn_host, tmp_path, document, fabrics.after()))["fleet"] is None
    options = ("--reports", str(reports(tmp_path / "reports")))
    fleet = data(page(evpn_host, tmp_path, document, fabrics.after(), *options))["fleet"]
    assert fleet["summary"].startswith("500 hosts, generation 1: 499 need a person (1 down, 498")
    assert fleet["damaged"] == [["srv0103.json", "can't be read: Input data was truncated"]]
    first, last = fleet["hosts"][0], fleet["hosts"][-1]
    assert (first["name"], first["host"], first["needed"]) == ("srv0042", 42, True)
    assert first["why"] == "down: no <b>session</b>; behind"
    assert (last["name"], last["health"], last["generation"]) == ("srv0007", "ok", 1)
    assert not last["needed"]
    never = {each["contact"] for each in fleet["hosts"][1:-1]}
    assert never == {"never"}


def test_reports_are_for_the_page(evpn_host: Command, tmp_path: Path) -> None:
    """Reports without --html are wrong usage; a missing folder is named."""
    source = tmp_path / "fleet.json"
    source.write_bytes(encoded(fabrics.before(3)))
    result = evpn_host("review", source, source, "--reports", reports(tmp_path / "reports"))
    assert (result.code, "--html" in result.err) == (2, True)
    options = ("--html", tmp_path / "page.html", "--reports", tmp_path / "none")
    result = evpn_host("review", source, source, *options)
    assert (result.code, "none" in result.err) == (2, True)


PAGES = {
    "changes": ("! leaves one session", "V-Net red-new", "12 hosts"),
    "fabric": ("leaf31", "<svg", 'class="cable removed"', 'class="needed"'),
    "vpcs": ("VPCs", "1033", "red"),
    "vpc/33": ("VPC red", "10.50.5.254/24", "500 hosts"),
    "host/42": ("Host srv0042", "leaf4, goes", "/etc/frr/frr.conf", "Last report:", "behind"),
    "files": ("/etc/netplan/60-evpn-host.yaml", "on 12 hosts"),
    "status": ("1 down", "no &lt;b&gt;session&lt;/b&gt;", "never reported", "srv0103.json"),
    "search/srv0401": ("1 host", "red-new"),
}


@pytest.fixture(scope="session")
def chromium(root_user: None) -> tuple[str, dict[str, str]]:
    """Return a browser's path and environment."""
    del root_user
    return browser()


@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_each_part(
    evpn_host: Command, tmp_path: Path, name: str, chromium: tuple[str, dict[str, str]]
) -> None:
    """Chromium shows each part, and its console stays empty."""
    options = ("--reports", str(reports(tmp_path / "reports")))
    page(evpn_host, tmp_path, fabrics.before(), fabrics.after(), *options)
    program, environment = chromium
    result = subprocess.run(
        [
            program,
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=5000",
            "--enable-logging=stderr",
            "--dump-dom",
            f"{(tmp_path / 'page.html').as_uri()}#{name}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in result.stderr
    for words in PAGES[name]:
        assert words in result.stdout
