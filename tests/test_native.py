"""The native tools of the distributions judge what we render: every snapshot, and random hosts.

Each tool runs in a root tree of its distribution (lab/root.py), which needs root. With `--all`
the tools of Debian's testing release judge too.
"""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from generator.activation import netplan_nics
from generator.activation.netplan import FILE, GENERATORS
from generator.desired import plan
from generator.desired.payload import load
from generator.desired.payload.leaves import Leaves, Switch, switches
from generator.desired.render import render_leaf
from generator.errors import Refused
from generator.observed import networkd as networkd_files
from generator.state import files
from lab.image import RELEASES, SUITES
from lab.result import Result
from lab.root import Root
from tests.conftest import BACKENDS
from tests.profiles import rounds
from tests.strategies import Json, documents, encoded, host, odd_hosts

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"
INTERFACES = "etc/network/interfaces.d/evpn-host"
FILTER = "etc/nftables.d/evpn-host.nft"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tools of each suite; those of testing only with `--all`."""
    if "root" in metafunc.fixturenames:
        suites = SUITES if metafunc.config.getoption("all_of_it", False) else RELEASES
        metafunc.parametrize("root", sorted(suites), indirect=True, scope="session")


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """Make a distribution's root tree, with its tools."""
    del root_user
    with Root(request.param, share=[SNAPSHOTS]) as tree:
        yield tree


def trees(folder: Path, file: str) -> list[Path]:
    """Return the root directories below `folder` with this file, one for each content of it."""
    by_content = {path.read_bytes(): path.parents[file.count("/")] for path in folder.rglob(file)}
    return sorted(by_content.values())


Judge = Callable[[list[Path]], list[str]]
"""Turns trees into a tool's complaints about each; an empty text is none."""


def complaints(judge: Judge, roots: list[Path]) -> dict[str, str]:
    """Return a tool's complaints about trees, by tree."""
    assert roots
    answers = dict(zip(map(str, roots), judge(roots), strict=True))
    return {tree: text for tree, text in answers.items() if text}


def each(judge: Callable[[Root, Path], str], root: Root) -> Judge:
    """Return a judge that starts its tool once for each tree."""
    return lambda roots: [judge(root, tree) for tree in roots]


def _complaint(result: Result) -> str:
    """Return a tool's exit code and output; an empty text when it succeeds in silence."""
    text = result.out + result.err
    return f"{result.code}: {text}" if result.code or text else ""


GENERATE = f"""
    copy=$(mktemp -d) && cp -r "$1/etc" "$copy" && chmod -R go= "$copy" || exit 9
    for generator in {" ".join(GENERATORS)}; do
        [ ! -x $generator ] || break
    done
    $generator --root-dir "$copy"; code=$?
"""


def netplan(root: Root, tree: Path) -> str:
    """Return netplan's complaints. What it generates goes to a copy, which is then removed."""
    script = f'{GENERATE} rm -r "$copy"; exit $code'
    result = root.run(["sh", "-c", script, "-", tree], check=False)
    return _complaint(result)


def networkd(root: Root, roots: list[Path]) -> str:
    """Return networkd's complaints about netplan's files and our drop-ins, of all trees in one go.

    It reads them when it starts, in a network namespace of its own; the result does not matter.
    """
    # Not mv: a process for each of some thousand files takes longer than all the rest.
    move = """
import shutil, sys
from pathlib import Path
copy, number = sys.argv[1:]
for folder in ("run", "etc"):
    for file in Path(copy, folder, "systemd/network").glob("*"):
        name = file.name.removeprefix("10-netplan-")
        shutil.move(file, f"/etc/systemd/network/10-netplan-{number}-{name}")
"""
    script = f"""
        mount -t tmpfs none /etc/systemd/network && mount -t tmpfs none /run && mkdir /run/systemd
        take() {{
            {GENERATE}
            python3 -c "$move" "$copy" "$2"
            cp -r "$copy"/etc/systemd/networkd.conf.d /etc/systemd/
        }}
        number=0
        for tree; do take "$tree" $number; number=$((number + 1)); done
        chmod -R a+rX /etc/systemd
        export SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=debug
        timeout 240 /lib/systemd/systemd-networkd 2>&1 | sed '/Enumeration completed/q'
    """
    argv: list[str | Path] = ["unshare", "--mount", "--net", "sh", "-c", script, "-", *roots]
    output = root.run(argv, timeout=300, env={"move": move}).out
    assert "Enumeration completed" in output, output
    complaints_ = "".join(re.findall(r"^/\S+:\d+: .*\n", output, re.MULTILINE))
    return _TOLERATED["networkd"].sub("", complaints_)


def frr(root: Root, tree: Path) -> str:
    """Return vtysh's complaints about frr.conf, and those of the shell, which sources daemons.

    FRR's package does so with `set -e` before an upgrade. What was to be done is done then. A leaf
    has daemons of its own.
    """
    folder = tree / "etc/frr"
    dry: list[str | Path] = ["vtysh", "--dryrun", "--inputfile", folder / "frr.conf"]
    again = 'ip link add ens4 type bridge; ip link set ens4 up; . "$1"; set -e; . "$1"'
    sourced: list[str | Path] = ["unshare", "--net", "bash", "-c", again, "-", folder / "daemons"]
    commands = (dry, sourced) if (folder / "daemons").exists() else (dry,)
    return "".join(_complaint(root.run(argv, check=False)) for argv in commands)


def nft(root: Root, roots: list[Path]) -> list[str]:
    """Return nft's complaints about each tree's packet filter; none of them is loaded."""
    script = 'for tree; do nft -c -f "$tree/etc/nftables.d/evpn-host.nft" 2>&1; echo ---; done'
    argv: list[str | Path] = ["unshare", "--net", "sh", "-c", script, "-", *roots]
    return root.run(argv, check=False).out.split("---\n")[:-1]


# What frr.conf has for zebra alone: bgpd does not know it.
_FOR_ZEBRA = re.compile(r"no zebra .*|vrf \S+| vni \d+|exit-vrf| (no )?ipv6 nd .*")


def bgpd(root: Root, tree: Path) -> str:
    """Return what bgpd refuses of frr.conf: vtysh knows the syntax, bgpd what it means."""
    lines = (tree / "etc/frr/frr.conf").read_text().splitlines()
    # Empty lines instead, so that the numbers in complaints stay right.
    text = "".join("\n" if _FOR_ZEBRA.fullmatch(line) else f"{line}\n" for line in lines)
    # It reads its file as FRR's user, and no pipe.
    script = """
        mkdir -p /run/frr && chown frr:frr /run/frr && cat > /run/frr/bgpd.conf &&
        chown frr:frr /run/frr/bgpd.conf &&
        exec /usr/lib/frr/bgpd --dryrun --config_file /run/frr/bgpd.conf --log stdout --bgp_port 0
    """
    result = root.run(["sh", "-c", script], check=False, input=text)
    refused = re.findall(r"(?:No such|Command|Error).* on config line .*", result.out)
    return "\n".join(refused) if not result.code else _complaint(result)


# Lines that a tool prints about every tree, and why they are right or known.
_TOLERATED = {
    "ifupdown": re.compile(
        # Without a setting a bridge's MTU follows the smallest guest port, so we set ours.
        r"warning: \S+: bridge inherits mtu from its ports\. There is no need to assign mtu .*\n"
        # Its listener to netlink failed to read, seen once in thousands of runs, and goes on
        # (nllistener.py). The exit code and the stanzas show that it has read the file.
        r"|error: recv\(\) error: .*\n"
        # Its range of VNIs is one short.
        r'|warning: \S+: vxlan-id: value of out range "16777215": .*\n'
        # It takes a NIC with a dot in its name for a VLAN, whose NIC is the operator's.
        r"|warning: \S+: vlan dev mtu \d+ is greater than lower realdev .*\n"
        # VPC ids above 4000 need an operator's policy: without it, diff and apply refuse them.
        r"|error: \S+: vrf table id \d+ out of reserved range \[1001,5000\]\n"
    ),
    # systemd before 256 does not have this key, and does not need it.
    "networkd": re.compile(r"\S+: Unknown key 'ManageForeignNextHops' in section .*\n"),
}


# Runs ifupdown2's programs for one file after another. They are Python, and take longer to start
# than to judge a file. So one process imports what they import, and forks for each run. It reads
# commands as JSON, and writes a list of exit code, output and errors for each.
IFUPDOWN = """
import importlib, json, os, runpy, sys, tempfile, traceback
sys.path[:0] = ["/usr/share/ifupdown2", "/usr/share/ifupdown2/addons"]
addons = [file[:-3] for file in sorted(os.listdir(sys.path[1])) if file.endswith(".py")]
for module in ("ifupdown.main", "lib.nlcache", *addons):
    importlib.import_module(module)
outcomes = []
for argv in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            code = 1
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = argv
            try:
                runpy.run_path(argv[0], run_name="__main__")
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
    outcomes.append([code, *texts])
json.dump(outcomes, sys.stdout)
"""


def ifupdown(root: Root, roots: list[Path]) -> list[str]:
    """Return `ifup -s`'s complaints about values, and ours about keywords, which it ignores."""
    known = _keywords(root)
    files = [tree / INTERFACES for tree in roots]
    commands = [
        argv
        for file in map(str, files)
        for argv in (
            ["/sbin/ifup", "-s", "-a", "-i", file],
            ["/sbin/ifquery", "-a", "-o", "json", "-i", file],
        )
    ]
    # /run is its own, and the lock in it too, so that two processes can run at once.
    script = 'mount -t tmpfs none /run && mkdir /run/network && exec python3 -c "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, "-", IFUPDOWN]
    outcomes = iter(root.run(argv, input=json.dumps(commands), timeout=300).json)
    return [
        _judged(known, file, Result(*values), Result(*query))
        for file, values, query in zip(files, outcomes, outcomes, strict=True)
    ]


def _judged(known: set[str], file: Path, values: Result, query: Result) -> str:
    text = values.out + _TOLERATED["ifupdown"].sub("", values.err)
    text += _TOLERATED["ifupdown"].sub("", query.err)
    if query.code:
        return f"{query.code}: {text}"
    stanzas = [stanza for stanza in file.read_text().splitlines() if stanza.startswith("iface ")]
    if [f"iface {interface['name']}" for interface in query.json] != stanzas:
        text += "not the interfaces that are in the file\n"
    used = {keyword for interface in query.json for keyword in interface["config"]}
    return text + "".join(f"unknown keyword {keyword}\n" for keyword in sorted(used - known))


def _keywords(root: Root) -> set[str]:
    """Return the keywords that ifupdown2 knows."""
    return set(re.findall(r"^  ([a-z0-9-]+)$", root.run(["ifquery", "-s"]).out, re.MULTILINE))


# A judge that accepts everything would pass the tests too. So each must find a fault of these.
LEAF = "leaves-coke-cluster/ns-leaf-0"
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "netplan": (
        "k8s01-netplan",
        "etc/netplan/60-evpn-host.yaml",
        "mac-learning: false",
        "mac-learnign: false",
    ),
    "frr": ("k8s01-netplan", "etc/frr/frr.conf", "advertise-all-vni", "advertise-all-vnis"),
    "bgpd": ("k8s01-netplan", "etc/frr/frr.conf", "neighbor ens5 ", "neighbor LEAVES "),
    "frr-leaf": (LEAF, "etc/frr/frr.conf", "prefix-list swp9s1 in", "prefix-list swp9s1 inn"),
    "bgpd-leaf": (LEAF, "etc/frr/frr.conf", "neighbor swp9s1 ", "neighbor HOSTS "),
    "shell": ("k8s01-netplan", "etc/frr/daemons", "done\n", "od\n"),
    "nft": ("k8s01-netplan", FILTER, "th,96,24", "th,96,240000"),
    "ifupdown-value": ("k8s01-ifupdown", INTERFACES, "vxlan-id 26", "vxlan-id many"),
    "ifupdown-keyword": ("k8s01-ifupdown", INTERFACES, "vxlan-port", "vxlan-prot"),
}


def judges(root: Root) -> dict[str, Judge]:
    return {
        "netplan": each(netplan, root),
        "frr": each(frr, root),
        "bgpd": each(bgpd, root),
        "ifupdown": partial(ifupdown, root),
        "nft": partial(nft, root),
    }


FILES = {
    "netplan": "etc/netplan/60-evpn-host.yaml",
    "frr": "etc/frr/frr.conf",
    "bgpd": "etc/frr/frr.conf",
    "ifupdown": INTERFACES,
    "nft": FILTER,
}


@pytest.mark.parametrize("tool", FILES)
def test_accepts_every_snapshot(root: Root, tool: str) -> None:
    """netplan, FRR, ifupdown2 and nft read what we render for every payload without a complaint."""
    assert complaints(judges(root)[tool], trees(SNAPSHOTS, FILES[tool])) == {}


def test_networkd_accepts_every_snapshot(root: Root) -> None:
    """systemd-networkd knows each key in our drop-ins, and in netplan's output for our file."""
    assert networkd(root, trees(SNAPSHOTS, FILES["netplan"])) == ""


def test_networkd_finds_a_fault(root: Root, tmp_path: Path) -> None:
    """networkd names an unknown key of a drop-in."""
    shutil.copytree(SNAPSHOTS / "k8s01-netplan", tmp_path / "spoilt")
    file = tmp_path / "spoilt/etc/systemd/network/10-netplan-vxlan14.network.d/evpn-host.conf"
    file.write_text(file.read_text().replace("Learning", "Learnign"))
    assert "Learnign" in networkd(root, [tmp_path / "spoilt"])


def test_the_generator_of_netplan_writes_below_its_folder(root: Root, tmp_path: Path) -> None:
    """The suite has the generator that the product calls; it makes networkd's files there only."""
    shutil.copytree(SNAPSHOTS / "k8s01-netplan/etc", tmp_path / "etc")
    script = f"""
from pathlib import Path
from generator.activation import backends, commands
commands.run(backends.named("netplan").check(Path({str(tmp_path)!r}), 9), print)
"""
    argv = ["/opt/evpn-host/bin/python", "-c", script]
    output = root.run(argv, cwd="/opt/repo", env={"PYTHONDONTWRITEBYTECODE": "1"}).out
    name = "configure" if root.suite == "forky" else "generate"
    assert f" /usr/libexec/netplan/{name} --root-dir {tmp_path} " in output
    assert (tmp_path / "run/systemd/network/10-netplan-vxlan14.netdev").exists()
    assert not root.run("find /run /etc/systemd/network -name 10-netplan*".split()).out


def test_which_netplan_knows_an_optional_vrf(root: Root) -> None:
    """Debian 12's refuses the key, and with it the whole file."""
    script = (
        "from generator.activation.netplan import Netplan\n"
        "print(Netplan()._supports_optional_vrfs())"
    )
    argv = ["/opt/evpn-host/bin/python", "-c", script]
    output = root.run(argv, cwd="/opt/repo", env={"PYTHONDONTWRITEBYTECODE": "1"}).out
    assert output.strip() == str(root.suite != "bookworm")


@pytest.mark.parametrize("fault", FAULTS)
def test_each_tool_finds_a_fault(root: Root, fault: str, tmp_path: Path) -> None:
    """Each tool complains about a spoilt file, so its silence above means something."""
    case, file, right, wrong = FAULTS[fault]
    shutil.copytree(SNAPSHOTS / case, tmp_path / case)
    spoilt = tmp_path / case / file
    text = spoilt.read_text()
    assert right in text
    spoilt.write_text(text.replace(right, wrong))
    tool = {"shell": "frr"}.get(fault, fault.partition("-")[0])
    assert complaints(judges(root)[tool], [tmp_path / case])


def test_accepts_any_host(root: Root, tmp_path: Path) -> None:
    """netplan, FRR, ifupdown2, nft and networkd read what we render for any accepted document.

    The odd values are in it each time, and random hosts.
    """
    number = itertools.count()

    @settings(
        max_examples=rounds(short=8, long=120),
        database=None,
        phases=[Phase.generate],  # the tools judge all of them together afterwards
    )
    @given(documents())
    def render_any(document: Json) -> None:
        render_one(document)

    def render_one(document: Json) -> None:
        tree = tmp_path / str(next(number))
        tree.mkdir()
        (tree / "payload.json").write_bytes(encoded(document))
        (host,) = load(encoded(document)).hosts
        for backend in BACKENDS:
            for path, text in plan.make(host, backend).files.items():
                file = tree / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)

    render_any()
    for document in odd_hosts().values():
        render_one(document)
    answers = {
        tool: complaints(judge, trees(tmp_path, FILES[tool]))
        for tool, judge in judges(root).items()
    }
    answers["networkd"] = {"all": networkd(root, trees(tmp_path, FILES["netplan"]))}
    assert answers == {tool: {} for tool in FILES} | {"networkd": {"all": ""}}


def _with_ports_of_switches(document: Json) -> Json:
    """Return a document whose links lead to ports of two leaves, in place of any text."""
    ports = {}
    for index, link in enumerate(document.get("links", ())):
        ports[link["remote"]["name"]] = f"swp{index}@leaf{index % 2}"
        link["remote"].pop("asn", None)

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(inside) for key, inside in value.items()}
        if isinstance(value, list):
            return list(map(renamed, value))
        return ports.get(value, value) if isinstance(value, str) else value

    changed = document | {"links": renamed(document.get("links", []))}
    for vnet in changed.get("vnets", ()):
        vnet["ports"] = renamed(vnet.get("ports", []))
    return changed


def _switch(index: int) -> Switch:
    text = f"x: {{loopback: 203.0.113.{index}, asn: {4200009000 + index}, uplinks: [swp51]}}"
    return switches(text.encode())["x"]


def test_accepts_any_leaf(root: Root, tmp_path: Path) -> None:
    """FRR and ifupdown2 read what we render for the leaves of any accepted document.

    Two hosts of one leaf with the same address, for example, are refused.
    """
    number = itertools.count(1)

    @settings(
        max_examples=rounds(short=8, long=200),
        database=None,
        phases=[Phase.generate],  # the tools judge all of them together afterwards
    )
    @given(documents())
    def render_any(document: Json) -> None:
        payload = load(encoded(_with_ports_of_switches(document)))
        try:
            names = Leaves(payload, {}).names
            known = {name: _switch(index) for index, name in enumerate(names, 1)}
            leaves = Leaves(payload, known)
        except Refused:
            return
        for name in leaves.names:
            tree = tmp_path / str(next(number))
            for path, text in render_leaf(leaves.leaf(name)).items():
                files.write(tree, path, text.encode(), 0o644)

    render_any()
    judged = judges(root)
    tools = ("frr", "bgpd", "ifupdown")
    answers = {tool: complaints(judged[tool], trees(tmp_path, FILES[tool])) for tool in tools}
    assert answers == {tool: {} for tool in tools}
    assert len(list(tmp_path.iterdir())) > 3


def _renamed(value: Any, names: dict[str, str], key: str = "") -> Any:
    """Return a document with plain texts in place of the names of V-Nets, VPCs and ports."""
    if isinstance(value, dict):
        return {name: _renamed(inside, names, name) for name, inside in value.items()}
    if isinstance(value, list):
        return [_renamed(inside, names, key) for inside in value]
    if key in {"name", "vnet"}:
        return names.setdefault(value, f"x{len(names)}")
    return value


def _without_text(text: str) -> list[str]:
    """Return a file's lines without comments and descriptions of sessions."""
    return [re.sub(r"(^|  )# .*| description .*", r"\1#", line) for line in text.splitlines()]


@settings(max_examples=rounds(short=30, long=500))
@given(documents())
def test_names_are_text_only(document: Json) -> None:
    """The name of a V-Net, a VPC or a port adds no line to a file and removes none."""
    plain = _renamed(document, {})
    plain["server"]["name"] = document["server"]["name"]
    (host,), (other,) = load(encoded(document)).hosts, load(encoded(plain)).hosts
    for backend in BACKENDS:
        hostile, tame = plan.make(host, backend).files, plan.make(other, backend).files
        assert hostile.keys() == tame.keys()
        for path in hostile:
            assert _without_text(hostile[path]) == _without_text(tame[path])


def test_settings_that_a_kernel_lacks_are_no_failure(root: Root) -> None:
    """A setting that an older kernel lacks or refuses stops neither a boot nor an apply.

    This computer has no such bridge, and so none of its settings; no kernel takes the last value.
    """
    file = SNAPSHOTS / "dual-stack-gateways-netplan/etc/sysctl.d/90-evpn-host.conf"
    lines = [line for line in file.read_text().splitlines() if "accept_untracked_na" in line]
    assert lines == ["-net/ipv6/conf/nbr-26/accept_untracked_na = 2"]
    script = "cat > /tmp/sysctl.conf && exec /usr/lib/systemd/systemd-sysctl /tmp/sysctl.conf"
    text = "\n".join([*lines, "-net/ipv4/tcp_l3mdev_accept = 7\n"])
    result = root.run(["sh", "-c", script], input=text)
    assert not result.err


SECTIONS = """
network:
  ethernets:
    ens4: {}
    by-mac: {match: {macaddress: '02:00:00:00:00:55'}}
    renamed: {match: {macaddress: '02:00:00:00:00:56'}, set-name: lan}
    by-driver: {match: {driver: 'virtio*', name: 'en*'}}
    of-others: {renderer: NetworkManager}
    all: {match: {}}
  bonds: {bond0: {interfaces: [by-driver]}}
  vlans: {vlan5: {id: 5, link: bond0}}
"""


def test_which_nics_a_section_is_about(root: Root, tmp_path: Path) -> None:
    """netplan writes the [Match] that we expect of a section, into a file of the expected name."""
    files.write(tmp_path, "etc/netplan/50-operator.yaml", SECTIONS.encode(), 0o600)
    expected = netplan_nics.read(tmp_path, FILE, load(encoded(host())).hosts[0]).files
    script = f'{GENERATE} cp -r "$copy/run" "$1"; rm -r "$copy"; exit $code'
    root.run(["sh", "-c", script, "-", tmp_path])
    matches = {
        path.name: networkd_files.parsed(path.name, "", path.read_text()).match
        for path in tmp_path.glob("run/systemd/network/*.network")
    }
    assert matches == {file.name: file.match for file in expected}


def test_nft_takes_a_filter_that_keeps_guests_addresses(root: Root, tmp_path: Path) -> None:
    """nft accepts the chain of `guest_nat: false`, whose rules are counted."""
    k8s01 = load((SNAPSHOTS.parent / "examples/k8s01.json").read_bytes()).hosts[0]
    planned = plan.make(k8s01, "netplan", guest_nat=False)
    file = tmp_path / FILTER
    file.parent.mkdir(parents=True)
    file.write_text(planned.files[FILTER])
    assert nft(root, [tmp_path]) == [""]
    default = plan.target(plan.make(k8s01, "netplan"))
    assert plan.target(planned).filter_rules == default.filter_rules + 3
