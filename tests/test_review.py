"""`review` lists the changes between two payloads or two trees, for all their hosts."""

import copy
import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import markdown
import msgspec
import pytest

from generator.desired import comparison, written
from generator.desired.change import Change
from generator.desired.grouped import Group, folded, grouped, short_list
from generator.desired.payload import load
from generator.desired.plan import body
from generator.desired.render import render
from generator.errors import printable
from generator.verbs import review_text
from generator.verbs.review import Hosts, Review
from lab.result import Result
from tests import fabrics
from tests.conftest import BACKENDS
from tests.strategies import LEAF1, LEAF2, Json, host, link, server, tagged, vnet

Command = Callable[..., Result]
PORTS = tagged(LEAF1, LEAF2)
RED = vnet(26, name="red", prefixes=["10.26.0.1/24"], ports=PORTS)


def file(folder: Path, name: str, document: Json) -> Path:
    path = folder / name
    path.write_bytes(fabrics.text(document))
    return path


def git(folder: Path, *argv: str) -> None:
    """Run git without the user's settings."""
    own = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.net")
    subprocess.run(["git", *identity, *argv], cwd=folder, env=os.environ | own, check=True)


@pytest.fixture
def sources(evpn_host: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a repository with a Fleet and its tree, committed, and changed in the work tree."""
    git(tmp_path, "init", "-q")
    for number, document in enumerate((fabrics.before(60), changed_60())):
        file(tmp_path, "fleet.json", document)
        result = evpn_host("render", "-p", tmp_path / "fleet.json", "-o", tmp_path / "hosts")
        assert result.code == 0, result.err
        if number == 0:
            git(tmp_path, "add", "-A")
            git(tmp_path, "commit", "-q", "-m", "one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed_60() -> Json:
    document = fabrics.before(60)
    ports = [{"name": port} for port in fabrics.ports_of(7, 33)]
    new = vnet(4155, name="red-new", prefixes=["10.50.5.254/24"], ports=ports)
    document["vnets"].append(new)
    document["hosts"][42]["server"]["asn"] += 5000
    return document


CHANGES_60 = [
    "+ V-Net red-new (VNI 4155, 10.50.5.254/24, VPC red)   2 hosts: srv0007, srv0033",
    "~ AS number: 4200000142 → 4200005142                  1 host: srv0042   ! all sessions end",
    "  57 of 60 hosts unchanged",
    "1 added, 1 changed; 1 marked with !",
]


# --- Sources ---


@pytest.mark.parametrize("old", ["HEAD:fleet.json", "HEAD:hosts", "HEAD:./hosts/"])
@pytest.mark.parametrize("new", ["fleet.json", "hosts", "hosts/"])
def test_any_two_sources_say_the_same(
    evpn_host: Command, sources: Path, old: str, new: str
) -> None:
    """A payload and its tree, on disk and in Git, each against each, give the same changes."""
    del sources
    result = evpn_host("review", old, new)
    assert result.out.splitlines() == CHANGES_60
    assert result.code == 1
    assert evpn_host("review", new, new).code == 0


def test_two_revisions_are_compared(evpn_host: Command, sources: Path) -> None:
    """Two revisions are compared, the index too; unchanged hosts are not read."""
    git(sources, "add", "-A")
    assert evpn_host("review", "HEAD:hosts", ":fleet.json").out.splitlines() == CHANGES_60
    git(sources, "commit", "-q", "-m", "two")
    for old, new in (("HEAD~1:hosts", "HEAD:hosts"), ("HEAD~1:fleet.json", "@:fleet.json")):
        assert evpn_host("review", old, new).out.splitlines() == CHANGES_60


def test_the_tree_of_one_host(evpn_host: Command, tmp_path: Path, backend: str) -> None:
    """The tree of one host is compared with a payload, rendered for the same backend."""
    old, new = file(tmp_path, "old.json", host()), file(tmp_path, "new.json", host(RED))
    evpn_host("render", "-p", old, "-o", tmp_path / "tree", "-b", backend)
    for before, after in ((old, new), (tmp_path / "tree", new)):
        assert evpn_host("review", before, after).out.splitlines() == [
            "+ V-Net red (VNI 26, 10.26.0.1/24, VPC coke)   1 host: K8S01",
            "+ VPC coke (Vrf_33, L3VNI 1033)                1 host: K8S01",
            "  0 of 1 host unchanged",
            "2 added",
        ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no.json", "no.json: can't be read"),
        ("HEAD:no.json", "is no file, folder, or REV:path"),
        ("no:hosts", "is no file, folder, or REV:path"),
        ("HEAD:", "has no rendered host in it"),
        (".", "has no rendered host in it"),
        ("bad.json", "bad.json: apiVersion: is required"),
        ("--output=x:y", "No such option"),
        ("HEAD:a\nb", "HEAD:a\\nb: can't be read"),
    ],
)
def test_trouble_names_the_source(
    evpn_host: Command, sources: Path, source: str, words: str
) -> None:
    """The exit code is 2, and the message names the source."""
    file(sources, "bad.json", {"kind": "Host"})
    for pair in ((source, "fleet.json"), ("fleet.json", source)):
        result = evpn_host("review", *pair)
        assert result.code == 2
        assert words in result.err


def test_wrong_usage(evpn_host: Command, sources: Path) -> None:
    """Standard input twice, or two forms at once, is wrong usage."""
    del sources
    assert evpn_host("review", "-", "-").code == 2
    assert evpn_host("review", "--json", "--markdown", "hosts", "hosts").code == 2


def test_a_lower_generation_is_a_warning(evpn_host: Command, sources: Path) -> None:
    """A lower generation is a warning: hosts would refuse that payload."""
    file(sources, "newer.json", fabrics.before(60) | {"generation": 3})
    result = evpn_host("review", "newer.json", "HEAD:fleet.json")
    assert (result.code, result.out) == (0, "  60 of 60 hosts unchanged\n")
    assert "warning: NEW has generation 1, OLD 3: a host that has OLD refuses" in result.err
    assert "warning" not in evpn_host("review", "HEAD:fleet.json", "newer.json").err


def test_git_says_what_is_wrong(
    evpn_host: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a repository the message has Git's own words."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    result = evpn_host("review", "HEAD:a", "HEAD:b")
    assert result.code == 2
    assert "not a git repository" in result.err


def test_no_link_is_followed(evpn_host: Command, sources: Path) -> None:
    """A host's folder that is a link, on disk and in Git, is no host."""
    (sources / "hosts/srv9999").symlink_to("srv0000")
    git(sources, "add", "-A")
    git(sources, "commit", "-q", "-m", "link")
    assert "60 of 60 hosts unchanged" in evpn_host("review", "HEAD:hosts", "hosts").out


# --- Rendered files ---


def files_of(document: Json, backend: str) -> dict[str, str]:
    host_ = load(fabrics.text(document)).host(None)
    return {path: body(text) for path, text in render(host_, backend).items()}


def test_every_payload_is_read_back(accepted: Path, backend: str) -> None:
    """Every host is read back from its files, without the management address: no file has it."""
    for each in load(accepted.read_bytes()).hosts:
        files = {path: body(text) for path, text in render(each, backend).items()}
        read = written.read(files, BACKENDS)
        assert read is not None
        assert read.backend == backend
        actual = read.host
        expected = msgspec.structs.replace(each, management=actual.management)
        assert actual == expected
        assert (actual.management is None) == (each.management is None)
        if actual.management and each.management:
            assert actual.management.bridge == each.management.bridge


def test_files_that_are_not_ours_alone_are_named(backend: str) -> None:
    """A host with a foreign line in a file is compared by files, not in network terms."""
    old, new = files_of(host(), backend), files_of(host(RED), backend)
    for path in new:
        edited = new | {path: new[path] + "# mine\n"}
        assert written.read(edited, BACKENDS) is None
        lines = [each.text for each in comparison.file_changes(old, edited, BACKENDS)]
        assert f"file /{path}" in "\n".join(lines)
        assert not any("V-Net" in line for line in lines)


def test_another_backend_is_one_change() -> None:
    """Another backend is one change, and the host is the same."""
    old, new = files_of(host(), "netplan"), files_of(host(RED), "ifupdown")
    assert [each.text for each in comparison.file_changes(old, new, BACKENDS)] == [
        "+ V-Net red (VNI 26, 10.26.0.1/24, VPC coke)",
        "+ VPC coke (Vrf_33, L3VNI 1033)",
        "~ backend: netplan → ifupdown",
    ]


def test_an_edited_host_is_read_whole_or_not_at_all(backend: str) -> None:
    """After any edit of lines, or with a file of another host, the host is read whole or not."""
    files = files_of(host(RED), backend)
    timers = files_of(host(RED, server=server(bgp={"holdtime": 30})), backend)
    one_link = files_of(host(RED, links=[link("ens4", LEAF1)]), backend)
    read_hosts = 0
    for seed in range(60):
        chance = random.Random(seed)  # noqa: S311
        edited = dict(files)
        if chance.randrange(2):
            other = chance.choice([timers, one_link])
            edited |= {path: text for path, text in other.items() if chance.randrange(3)}
        for _ in range(chance.choice([0, 0, 1, 4])):
            path = chance.choice(sorted(edited))
            lines = edited[path].splitlines(keepends=True)
            at = chance.randrange(len(lines))
            edits = [[], [lines[at]] * 2, [chance.choice(lines)], ["x\n"], [lines[at][:9] + "\n"]]
            lines[at : at + 1] = chance.choice(edits)
            edited[path] = "".join(lines)
            if not chance.randrange(5):
                del edited[path]
        read = written.read(edited, BACKENDS)
        if read:
            assert {p: body(t) for p, t in render(read.host, backend).items()} == edited, seed
            read_hosts += edited != files
        changes = comparison.file_changes(files, edited, BACKENDS)
        assert bool(changes) == (files != edited), seed
    assert read_hosts > 2


def test_equal_differences_are_one_line(evpn_host: Command, sources: Path) -> None:
    """Equal differences of files are one line; the difference has no password."""
    git(sources, "add", "-A")
    git(sources, "commit", "-q", "-m", "two")
    for number in (3, 4):
        path = sources / f"hosts/{fabrics.name(number)}/etc/frr/frr.conf"
        path.write_text(path.read_text() + " neighbor LEAVES password hunter22\n")
    result = evpn_host("review", "HEAD:hosts", "hosts")
    assert result.out.splitlines() == [
        "~ file /etc/frr/frr.conf   2 hosts: srv0003, srv0004",
        "",
        "~ file /etc/frr/frr.conf of 2 hosts: srv0003, srv0004",
        "    @@",
        "    + neighbor LEAVES password (not shown)",
        "  58 of 60 hosts unchanged",
        "1 changed",
    ]
    for form in ("--json", "--markdown"):
        assert "hunter22" not in evpn_host("review", form, "HEAD:hosts", "hosts").out


def test_files_of_others_are_left_out(evpn_host: Command, sources: Path) -> None:
    """A file without our first line, or with a path that we never write, is not looked at."""
    (sources / "hosts/srv0001/etc/hosts").write_text("x\n")
    (sources / "hosts/srv0001/etc/netplan/60-evpn-host.yaml").write_text("network: {}\n")
    (sources / "hosts/README").write_text("x\n")
    out = evpn_host("review", "fleet.json", "hosts").out
    assert out.splitlines()[0].startswith("- file /etc/netplan/60-evpn-host.yaml"), out
    assert "etc/hosts" not in out


def test_another_gateway_than_others_have(evpn_host: Command, sources: Path) -> None:
    """A gateway that only one host changes is a risk, and the gateway of the others is named."""
    git(sources, "add", "-A")
    git(sources, "commit", "-q", "-m", "two")
    document = changed_60()
    document["vnets"][1]["gateways"] = [{"prefix": "10.50.1.1/24"}]
    file(sources, "one.json", document)
    evpn_host("render", "-p", "one.json", "-o", "one")
    (sources / "hosts/srv0005").rename(sources / "aside")
    (sources / "one/srv0005").rename(sources / "hosts/srv0005")
    result = evpn_host("review", "HEAD:hosts", "hosts", "--json")
    (change,) = json.loads(result.out)["changes"]
    assert change["text"] == "~ V-Net red-a: gateway 10.50.1.254/24 → 10.50.1.1/24"
    (risk,) = change["risks"]
    assert risk.startswith("59 other hosts have 10.50.1.254/24, ")
    # A change on all hosts at once is no risk.
    assert not json.loads(evpn_host("review", "HEAD:hosts", "one", "--json").out)["risk"]


def test_a_new_host_with_another_gateway(evpn_host: Command, sources: Path) -> None:
    """The gateways of a new host are compared with those of the other hosts."""
    document = fabrics.before(61)
    document["vnets"][1]["gateways"] = [{"prefix": "10.50.1.1/24"}]
    file(sources, "one.json", document)
    evpn_host("render", "-p", "one.json", "-o", "one")
    (sources / "one/srv0060").rename(sources / "hosts/srv0060")
    result = evpn_host("review", "fleet.json", "hosts", "--json")
    (change,) = json.loads(result.out)["changes"]
    assert change["text"] == "+ host (2 uplinks, 2 V-Nets)"
    (risk,) = change["risks"]
    assert risk.startswith("V-Net 4101: 60 other hosts have 10.50.1.254/24, ")


# --- Risks, and what a host's models differ in ---


def words(old: Json, new: Json) -> list[str]:
    pair = (load(fabrics.text(each)).host(None) for each in (old, new))
    return [each.text_with_risks for each in comparison.host_changes(*pair)]


def test_another_password_is_not_shown() -> None:
    """Another password is a risk, as leaves must change it too; it is not shown."""
    old, new = (host(server=server(bgp={"password": each})) for each in ("hunter22", "hunter33"))
    (line,) = words(old, new)
    assert line.startswith("~ BGP: another password   ! sessions stay down")
    assert "hunter" not in line


def test_no_difference_is_left_unsaid() -> None:
    """Each difference of a host is at least named, such as router advertisements."""
    gateways = {"gateways": [{"prefix": "fd00:26::1/64"}]}
    advertisements = [
        RED | gateways | {"ipv6NeighborDiscovery": {"mode": "enabled", "managed": each}}
        for each in (False, True)
    ]
    assert words(*map(host, advertisements)) == ["~ V-Net red: what router advertisements say"]
    one, two = (load(fabrics.text(host(RED))).host(None) for _ in range(2))
    assert comparison.host_changes(one, two) == []
    odd = msgspec.structs.replace(two, foreign_files={"lo": "x.network"})
    assert [each.text for each in comparison.host_changes(one, odd)] == [
        "~ other settings of the host"
    ]


def test_removing_the_last_uplink_is_a_risk() -> None:
    """Each removed uplink has the mark when no uplink is left."""
    only = {"links": [], "vnets": [], "server": {k: v for k, v in server().items() if k != "mgmt"}}
    marked = [line for line in words(host(), host() | only) if "uplink" in line]
    assert marked == [
        "- uplink ens4 (swp1@leaf1)   ! leaves no session",
        "- uplink ens5 (swp1@leaf2)   ! leaves no session",
    ]


def test_new_and_removed_hosts_are_a_line_each(evpn_host: Command, tmp_path: Path) -> None:
    """New and removed hosts are a line each, however many V-Nets they have."""
    old, new = fabrics.before(20), fabrics.before(24)
    new["hosts"] = new["hosts"][2:]
    pair = [file(tmp_path, f"{n}.json", each) for n, each in enumerate((old, new))]
    result = evpn_host("review", *pair)
    assert result.out.splitlines() == [
        "+ host (2 uplinks, 2 V-Nets)   4 hosts: srv0020–srv0023",
        "- host (2 uplinks, 2 V-Nets)   2 hosts: srv0000, srv0001",
        "  18 of 24 hosts unchanged",
        "1 added, 1 removed",
    ]
    answer = json.loads(evpn_host("review", *pair, "--json").out)
    assert answer["hosts"]["added"] == ["srv0020", "srv0021", "srv0022", "srv0023"]
    assert answer["hosts"]["removed"] == ["srv0000", "srv0001"]
    assert answer["hosts"]["changed"] == []


# --- Groups and lists of hosts ---


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (["a"], "a"),
        (["srv01", "srv02"], "srv01, srv02"),
        (["srv08", "srv09", "srv10"], "srv08–srv10"),
        (["srv8", "srv9", "srv10"], "srv8–srv10"),
        (["srv9", "srv10", "srv011"], "srv9, srv10, srv011"),
        (["a1", "a2", "a3", "b4"], "a1–a3, b4"),
        (["r1-1", "r1-2", "r1-3", "r2-4"], "r1-1–r1-3, r2-4"),
        (["a1", "a3", "a5", "a7", "a8", "a9"], "a1, a3, a5 and 3 more"),
    ],
)
def test_a_long_list_of_hosts_is_cut(hosts: list[str], text: str) -> None:
    """Three names or more in a row are a range; too many names are counted."""
    assert short_list(hosts, 3) == text


def test_groups_are_sorted_and_have_all_hosts() -> None:
    """Groups are sorted by kind, then by name with numbers by value, and list all hosts."""
    changes = {
        "h10": [Change("~", "AS number", "1 → 2"), Change("+", "V-Net v10")],
        "h9": [Change("+", "V-Net v10"), Change("+", "V-Net v9")],
    }
    assert [(each.change.text, each.hosts) for each in grouped(changes)] == [
        ("+ V-Net v9", ["h9"]),
        ("+ V-Net v10", ["h9", "h10"]),
        ("~ AS number: 1 → 2", ["h10"]),
    ]


def test_many_details_are_one_line() -> None:
    """A detail that differs on each host is one line for all hosts, or a line each for few."""
    many = [Group(Change("~", "AS number", f"{n} → 9{n}"), [f"h{n}"]) for n in range(1, 51)]
    assert list(folded(many[:3])) == many[:3]
    (one,) = folded(many)
    assert one.change.text == "~ AS number: 1 → 91 and 49 others"
    assert len(one.hosts) == 50


# --- Forms ---


def test_exit_codes_are_those_of_diff(evpn_host: Command, sources: Path) -> None:
    """The exit codes are those of diff; with --fail-on-risk a change without a mark gives 0."""
    harmless = fabrics.before(60)
    harmless["vnets"][1]["gateways"] = [{"prefix": "10.50.1.1/24"}]
    file(sources, "harmless.json", harmless)
    for new, codes in (("harmless.json", (1, 0)), ("fleet.json", (1, 1)), ("HEAD:hosts", (0, 0))):
        argv = ("review", "HEAD:fleet.json", new)
        assert (evpn_host(*argv).code, evpn_host(*argv, "--fail-on-risk").code) == codes
        assert evpn_host(*argv, "--fail-on-risk", "--json").code == codes[1]
    assert evpn_host("review", "--fail-on-risk", "no", "HEAD:hosts").code == 2


def test_json_has_each_change_with_its_hosts(evpn_host: Command, sources: Path) -> None:
    """`--json` has every change with all its hosts."""
    del sources
    answer = json.loads(evpn_host("review", "HEAD:hosts", "hosts", "--json").out)
    assert answer["format"] == 1
    assert answer["risk"] is True
    assert answer["hosts"] == {
        "total": 60,
        "unchanged": 57,
        "changed": ["srv0007", "srv0033", "srv0042"],
        "added": [],
        "removed": [],
    }
    assert answer["changes"][1] == {
        "sign": "~",
        "subject": "AS number",
        "detail": "4200000142 → 4200005142",
        "text": "~ AS number: 4200000142 → 4200005142",
        "risks": ["all sessions end"],
        "hosts": ["srv0042"],
        "diff": "",
    }


class _Tags(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.code: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self.tags.add(tag)
        self.inside = tag == "code"
        self.code += [""] * self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "code"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.code[-1] += data


HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "`x`",
    "``` \n<b>",
    "[x](javascript:alert(1))",
    "![x](https://example.net/x.png)",
    "@everyone #1",
    "</summary></details><h1>x",
    "line\nend\r\u2028\x1b[31m",
    "https://example.net",
    "&lt;b&gt;",
    "\\",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(text: str) -> None:
    """In Markdown each is shown as it is; nothing ends a line or a cell, or is an element."""
    changes = [
        Change("+", f"V-Net {text}", text, (text,)),
        Change("~", f"file /{text}", diff=f"+{text}\n+```\n"),
    ]
    groups = [Group(each, [text, "h1"]) for each in changes]
    review = Review(Hosts(2, 0, [text], [], []), groups)
    page = review_text.markdown(review)
    shown = _Tags(markdown.markdown(page, extensions=["tables", "fenced_code", "md_in_html"]))
    own = {"h3", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "pre"}
    assert shown.tags <= own | {"details", "summary"}
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert [row.count("|") for row in rows] == [4, 4, 4, 3, 3, 3]  # a bar in code ends a cell too
    assert f"+ V-Net {printable(text)} ({printable(text)})" in shown.code
    for line in review_text.lines(review):
        assert line.isprintable()


def test_a_comment_stays_below_the_limit() -> None:
    """A long comment is cut, with a count, and each folded part is closed."""
    changes = [Change("+", f"V-Net {n}", "x" * 300, ("risk",) * (n % 2)) for n in range(2000)]
    changes += [Change("~", f"file /{n}", diff="+y\n" * 1000) for n in range(100)]
    review = Review(Hosts(9, 0, ["h"], [], []), [Group(each, ["h"] * 5) for each in changes])
    page = review_text.markdown(review)
    assert len(page.encode()) < 65_536
    assert page.count("<details>") == page.count("</details>") > 0
    (more,) = re.findall(r"… and (\d+) changes more", page)[:1]
    assert int(more) > 500


def test_a_comment_is_folded_beyond_a_size(evpn_host: Command, tmp_path: Path) -> None:
    """A few changes are open; many are folded below a line that counts them."""
    few = [Group(Change("+", f"V-Net {n}"), ["h"]) for n in range(12)]
    hosts = Hosts(1, 0, ["h"], [], [])
    assert "<details>" not in review_text.markdown(Review(hosts, few))
    many = [*few, Group(Change("+", "V-Net 13"), ["h"])]
    assert "<summary>13 changes</summary>" in review_text.markdown(Review(hosts, many))
    path = file(tmp_path, "a.json", host())
    assert evpn_host("review", path, path, "--markdown").out == (
        "### evpn-host: no host changes (1 of 1 host unchanged)\n\n"
    )


def test_diff_uses_the_same_words(evpn_host: Command, tmp_path: Path) -> None:
    """diff describes one host in the same words, with the same marks."""
    old = file(tmp_path, "old.json", host(RED))
    changed = copy.deepcopy(host(RED)) | {"links": [link("ens4", LEAF1)]}
    new = file(tmp_path, "new.json", changed)
    root = tmp_path / "root"
    assert evpn_host("apply", "-p", old, "--root", root, "-b", "ifupdown").code == 0
    argv = ("diff", "-p", new, "--root", root, "-b", "ifupdown")
    mark = "- uplink ens5 (swp1@leaf2)   ! leaves one session"
    assert evpn_host(*argv, "--stat").out.splitlines()[0] == mark
    reviewed = evpn_host("review", old, new).out.splitlines()[0]
    assert re.sub(r" +1 host: K8S01", "", reviewed) == mark
    answer = json.loads(evpn_host(*argv, "--json").out)
    assert answer["summary"] == ["- uplink ens5 (swp1@leaf2)"]
    assert answer["risks"] == [
        {"change": "- uplink ens5 (swp1@leaf2)", "risks": ["leaves one session"]}
    ]
