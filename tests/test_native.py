"""The native tools of the distributions judge what we render: every snapshot, and random hosts.

Each tool runs in a root tree of its distribution (lab/root.py), which needs root. With `--all`
those of Debian's testing release judge too.
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

from generator import activate, plan
from generator.payload import load
from lab.image import RELEASES, SUITES
from lab.result import LabUnavailable, Result
from lab.root import Root
from tests.conftest import BACKENDS, unavailable
from tests.profiles import rounds
from tests.strategies import Json, documents, encoded

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"
INTERFACES = "etc/network/interfaces.d/evpn-host"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have each suite's tools judge; testing's only where everything is asked for."""
    if "root" in metafunc.fixturenames:
        suites = SUITES if metafunc.config.getoption("all_of_it", False) else RELEASES
        metafunc.parametrize("root", sorted(suites), indirect=True, scope="session")


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """A distribution's root tree, with its tools."""
    del root_user
    try:
        with Root(request.param, share=[SNAPSHOTS]) as found:
            yield found
    except LabUnavailable as reason:
        unavailable(str(reason))


def trees(folder: Path, file: str) -> list[Path]:
    """The root directories below `folder` that have this file, one for each content of it."""
    found = {path.read_bytes(): path.parents[file.count("/")] for path in folder.rglob(file)}
    return sorted(found.values())


Judge = Callable[[list[Path]], list[str]]
"""From trees to what a tool has to say about each: nothing when it is content."""


def complaints(judge: Judge, found: list[Path]) -> dict[str, str]:
    """What a tool has to say about trees, by tree."""
    assert found
    said = dict(zip(map(str, found), judge(found), strict=True))
    return {tree: text for tree, text in said.items() if text}


def each(judge: Callable[[Root, Path], str], root: Root) -> Judge:
    """A judge that starts its tool for each tree."""
    return lambda found: [judge(root, tree) for tree in found]


def _said(done: Result) -> str:
    """Nothing, when a tool is content."""
    return f"{done.code}: {done.out}{done.err}" if done.code or done.out or done.err else ""


GENERATE = f"""
    copy=$(mktemp -d) && cp -r "$1/etc" "$copy" && chmod -R go= "$copy" || exit 9
    for generator in {" ".join(activate.NETPLAN_GENERATORS)}; do
        [ ! -x $generator ] || break
    done
    $generator --root-dir "$copy"; code=$?
"""


def netplan(root: Root, tree: Path) -> str:
    """netplan's judgement; what it makes of the files goes to a copy that is thrown away."""
    script = f'{GENERATE} rm -r "$copy"; exit $code'
    done = root.run(["sh", "-c", script, "-", tree], check=False)
    if _TOLERATED["netplan"].fullmatch(done.err):
        return ""
    return _said(done)


def networkd(root: Root, found: list[Path]) -> str:
    """networkd's judgement of netplan's files and our drop-ins, of all trees in one go.

    It reads them when it starts, in a network of its own; what it then makes is of no interest.
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
    argv: list[str | Path] = ["unshare", "--mount", "--net", "sh", "-c", script, "-", *found]
    said = root.run(argv, timeout=300, env={"move": move}).out
    assert "Enumeration completed" in said, said
    about = "".join(re.findall(r"^/\S+:\d+: .*\n", said, re.MULTILINE))
    return _TOLERATED["networkd"].sub("", about)


def frr(root: Root, tree: Path) -> str:
    """vtysh's judgement of frr.conf, and the shell's of the daemons file, which it sources."""
    folder = tree / "etc/frr"
    return _said(
        root.run(["vtysh", "--dryrun", "--inputfile", folder / "frr.conf"], check=False)
    ) + _said(root.run(["bash", "-n", folder / "daemons"], check=False))


# What a tool says of every tree, and why that is right or known.
_TOLERATED = {
    "netplan": re.compile(
        # It takes table 4294967295, of the last VPC id that there is, for none.
        r"\S+: Error in network definition: Vrf_4294966295: missing 'table' property\n(.*\n){0,2}"
    ),
    "ifupdown": re.compile(
        # Left alone, a bridge's MTU follows the smallest guest port: ours is set on purpose.
        r"warning: \S+: bridge inherits mtu from its ports\. There is no need to assign mtu .*\n"
        # Its range of VNIs is one short.
        r'|warning: \S+: vxlan-id: value of out range "16777215": .*\n'
        # A NIC with a dot in its name is a VLAN's to it, whose NIC is the operator's affair.
        r"|warning: \S+: vlan dev mtu \d+ is greater than lower realdev .*\n"
        # VPC ids above 4000 need a policy file for ifupdown2, which we don't write yet.
        r"|error: \S+: vrf table id \d+ out of reserved range \[1001,5000\]\n"
    ),
    # Before systemd 256 there was nothing to leave alone.
    "networkd": re.compile(r"\S+: Unknown key 'ManageForeignNextHops' in section .*\n"),
}


# ifupdown2's programs, for one file after another: they are Python, and take longer to start than
# to judge a file. So a process imports what they import, and each run is a fork of it. Commands as
# JSON in, lists of code, output and errors out.
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


def ifupdown(root: Root, found: list[Path]) -> list[str]:
    """ifupdown2's judgement of values (`ifup -s`), and ours of keywords, which it lets pass."""
    known = _keywords(root)
    files = [tree / INTERFACES for tree in found]
    commands = [
        argv
        for file in map(str, files)
        for argv in (
            ["/sbin/ifup", "-s", "-a", "-i", file],
            ["/sbin/ifquery", "-a", "-o", "json", "-i", file],
        )
    ]
    # With a lock of its own, two can run at once.
    script = 'mount -t tmpfs none /run && mkdir /run/network && exec python3 -c "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, "-", IFUPDOWN]
    outcomes = iter(root.run(argv, input=json.dumps(commands), timeout=300).json)
    return [
        _judged(known, file, Result(*values), Result(*read))
        for file, values, read in zip(files, outcomes, outcomes, strict=True)
    ]


def _judged(known: set[str], file: Path, values: Result, read: Result) -> str:
    said = values.out + _TOLERATED["ifupdown"].sub("", values.err)
    said += read.err
    if read.code:
        return f"{read.code}: {said}"
    stanzas = [stanza for stanza in file.read_text().splitlines() if stanza.startswith("iface ")]
    if [f"iface {interface['name']}" for interface in read.json] != stanzas:
        said += "not the interfaces that are in the file\n"
    used = {keyword for interface in read.json for keyword in interface["config"]}
    return said + "".join(f"unknown keyword {keyword}\n" for keyword in sorted(used - known))


def _keywords(root: Root) -> set[str]:
    """What ifupdown2 says that it knows."""
    return set(re.findall(r"^  ([a-z0-9-]+)$", root.run(["ifquery", "-s"]).out, re.MULTILINE))


# A judge that lets everything pass would pass too: each has to find a fault that we put in.
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "netplan": (
        "k8s01-netplan",
        "etc/netplan/60-evpn-host.yaml",
        "mac-learning: false",
        "mac-learnign: false",
    ),
    "frr": ("k8s01-netplan", "etc/frr/frr.conf", "advertise-all-vni", "advertise-all-vnis"),
    "shell": ("k8s01-netplan", "etc/frr/daemons", "done\n", "od\n"),
    "ifupdown-value": ("k8s01-ifupdown", INTERFACES, "vxlan-id 26", "vxlan-id many"),
    "ifupdown-keyword": ("k8s01-ifupdown", INTERFACES, "vxlan-port", "vxlan-prot"),
}


def judges(root: Root) -> dict[str, Judge]:
    return {
        "netplan": each(netplan, root),
        "frr": each(frr, root),
        "ifupdown": partial(ifupdown, root),
    }


FILES = {
    "netplan": "etc/netplan/60-evpn-host.yaml",
    "frr": "etc/frr/frr.conf",
    "ifupdown": INTERFACES,
}


@pytest.mark.parametrize("tool", FILES)
def test_accepts_every_snapshot(root: Root, tool: str) -> None:
    """netplan, FRR and ifupdown2 read what we render for every payload without a word."""
    assert complaints(judges(root)[tool], trees(SNAPSHOTS, FILES[tool])) == {}


def test_networkd_accepts_every_snapshot(root: Root) -> None:
    """systemd-networkd knows each key in our drop-ins and in what netplan makes of our file."""
    assert networkd(root, trees(SNAPSHOTS, FILES["netplan"])) == ""


def test_networkd_finds_a_fault(root: Root, tmp_path: Path) -> None:
    """networkd that is given a drop-in with a key that there is not says so."""
    shutil.copytree(SNAPSHOTS / "k8s01-netplan", tmp_path / "spoilt")
    file = tmp_path / "spoilt/etc/systemd/network/10-netplan-vxlan14.network.d/evpn-host.conf"
    file.write_text(file.read_text().replace("Learning", "Learnign"))
    assert "Learnign" in networkd(root, [tmp_path / "spoilt"])


def test_the_generator_of_netplan(root: Root, tmp_path: Path) -> None:
    """What the product calls is there, and makes networkd's files below the folder it is given."""
    shutil.copytree(SNAPSHOTS / "k8s01-netplan/etc", tmp_path / "etc")
    script = f"""
from pathlib import Path
from generator import activate
activate.run(activate.netplan_generate(Path({str(tmp_path)!r}), 9), print)
"""
    argv = ["/opt/evpn-host/bin/python", "-c", script]
    said = root.run(argv, cwd="/opt/repo", env={"PYTHONDONTWRITEBYTECODE": "1"}).out
    name = "configure" if root.suite == "forky" else "generate"
    assert f" /usr/libexec/netplan/{name} --root-dir {tmp_path} " in said
    assert (tmp_path / "run/systemd/network/10-netplan-vxlan14.netdev").exists()
    assert not root.run("find /run /etc/systemd/network -name 10-netplan*".split()).out


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_a_fault(root: Root, fault: str, tmp_path: Path) -> None:
    """A tool that is given a spoilt file says so: the silence above means something."""
    case, file, right, wrong = FAULTS[fault]
    shutil.copytree(SNAPSHOTS / case, tmp_path / case)
    spoilt = tmp_path / case / file
    text = spoilt.read_text()
    assert right in text
    spoilt.write_text(text.replace(right, wrong))
    tool = {"shell": "frr"}.get(fault, fault.partition("-")[0])
    assert complaints(judges(root)[tool], [tmp_path / case])


def test_accepts_any_host(root: Root, tmp_path: Path) -> None:
    """netplan, FRR and ifupdown2 read what we render for any accepted document."""
    number = itertools.count()

    @settings(
        max_examples=rounds(short=8, long=60),
        database=None,
        phases=[Phase.generate],  # the tools judge all together, afterwards
    )
    @given(documents())
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

    render_one()
    found = {
        tool: complaints(judge, trees(tmp_path, FILES[tool]))
        for tool, judge in judges(root).items()
    }
    found["networkd"] = {"all": networkd(root, trees(tmp_path, FILES["netplan"]))}
    assert found == {"netplan": {}, "frr": {}, "ifupdown": {}, "networkd": {"all": ""}}


def _renamed(value: Any, names: dict[str, str], key: str = "") -> Any:
    """A document with each free text (but ifname, host name and the like) made plain."""
    if isinstance(value, dict):
        return {name: _renamed(inside, names, name) for name, inside in value.items()}
    if isinstance(value, list):
        return [_renamed(inside, names, key) for inside in value]
    if key in {"name", "vnet"}:
        return names.setdefault(value, f"x{len(names)}")
    return value


def _without_text(text: str) -> list[str]:
    """A file's lines with comments cut off and a session's description left out."""
    return [re.sub(r"(^|  )# .*| description .*", r"\1#", line) for line in text.splitlines()]


@settings(max_examples=rounds(short=30, long=500))
@given(documents())
def test_names_are_text_only(document: Json) -> None:
    """Whatever a V-Net, a VPC or a port is called, no file gets or loses a line by it."""
    plain = _renamed(document, {})
    plain["server"]["name"] = document["server"]["name"]
    (host,), (other,) = load(encoded(document)).hosts, load(encoded(plain)).hosts
    for backend in BACKENDS:
        hostile, tame = plan.make(host, backend).files, plan.make(other, backend).files
        assert hostile.keys() == tame.keys()
        for path in hostile:
            assert _without_text(hostile[path]) == _without_text(tame[path])
