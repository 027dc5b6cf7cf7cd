"""The Debian package and the single file are built, judged and run on each distribution's Python.

apt installs the package in root trees of Debian 12 and 13 (lab/root.py), from a repository with
their own packages; this needs root. tests/lab/test_on_and_off.py tests it on a running host.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from generator import __version__
from generator.controller import config
from generator.state import record
from lab import build
from lab.result import Result
from lab.root import Root
from tests import endless
from tests.conftest import REFUSED, REPO
from tests.debs import FORGET, REPOSITORY, debs, program

CONTROL = (REPO / "packaging/debian/control").read_text()
APT = ["apt-get", "--yes", "--quiet=2", "--no-install-recommends"]
NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}
# Files that do not count: those of apt and dpkg, caches, and what the tests put there.
ASIDE = r"^/(proc|dev|opt|tmp|run|var/(lib/(apt|dpkg)|log|cache))|^/etc/apt/"

# Runs the command for several lists of arguments in one process, because it takes longer to start
# than to do its work. It reads the lists as JSON, and writes exit code, output and errors of each.
TOGETHER = """
import contextlib, io, json, sys
sys.path.insert(0, "/usr/share/evpn-host")
from generator.cli import main
said = []
for arguments in json.load(sys.stdin):
    sys.argv = ["evpn-host", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    said.append((code, out.getvalue(), err.getvalue()))
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def packages(root_user: None) -> Iterator[Path]:
    """Build the packages; return their folder, which builds of other checkouts do not remove."""
    del root_user
    folder = debs()
    with build.in_use(folder):
        yield folder


@pytest.fixture(scope="module", params=("bookworm", "trixie"))
def root(request: pytest.FixtureRequest, packages: Path) -> Iterator[Root]:
    """Make a distribution's tree whose apt has the distribution's libraries and our packages."""
    with Root(request.param) as tree, tempfile.TemporaryDirectory() as folder:
        for deb in packages.glob("*.deb"):
            shutil.copy(deb, folder)
        shutil.copy(packages / "evpn-host.pyz", folder)
        tree.run(["sh", "-c", f"cp {folder}/*.deb /opt/debs/; cp {folder}/*.pyz /opt/"])
        tree.run(["sh", "-c", FORGET])
        tree.run(["sh", "-c", REPOSITORY])
        yield tree


def install(root: Root, package: str = f"evpn-host={__version__}", *, check: bool = True) -> Result:
    argv = [*APT, "--allow-downgrades", "install", package]
    return root.run(argv, check, timeout=300, env=NONINTERACTIVE)


def test_the_single_file_needs_only_python(root: Root, tmp_path: Path) -> None:
    """It checks a payload, renders the files of the snapshots, and writes no units."""
    environment = {"HOME": str(tmp_path)}  # it unpacks itself there
    libraries = "import click, jinja2, netaddr, ruamel.yaml, urllib3"
    assert root.run(["/usr/bin/python3", "-c", libraries], check=False).code == 1
    payload = ["-p", "/opt/repo/examples/k8s01.json"]
    checked = root.run(["/opt/evpn-host.pyz", "check", *payload], env=environment)
    assert checked.code == 0
    for backend in ("netplan", "ifupdown"):
        out = tmp_path / f"k8s01-{backend}"
        root.run(
            ["/opt/evpn-host.pyz", "render", *payload, "-b", backend, "-o", out], env=environment
        )
        rendered = {p.relative_to(tmp_path): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        snapshot = REPO / "snapshots" / out.name
        assert rendered == {
            p.relative_to(REPO / "snapshots"): p.read_bytes()
            for p in snapshot.rglob("*")
            if p.is_file()
        }
    units = root.run(["/opt/evpn-host.pyz", "install-units"], check=False, env=environment)
    assert (units.code, units.out) == (1, "")
    assert "units can't run a single file" in units.err


@pytest.fixture(scope="module")
def before(root: Root) -> str:
    """List every file of the tree before the package is installed, with its checksum."""
    return files(root)


@pytest.fixture(scope="module")
def installed(root: Root, before: str) -> Root:
    """Install the package in the tree."""
    del before
    install(root)
    return root


def together(root: Root, commands: list[list[str]]) -> list[Result]:
    """Run the package's command for each list of arguments; return the results."""
    argv = ["/usr/bin/python3", "-c", TOGETHER]
    result = root.run(argv, input=json.dumps(commands), timeout=300)
    return [Result(*each) for each in result.json]


def files(root: Root) -> str:
    script = "find / -xdev -not -type d -print0 | sort -z | xargs -0 cksum 2>/dev/null"
    lines = root.run(["sh", "-c", script], check=False, timeout=300).out.splitlines()
    return "\n".join(line for line in lines if not re.search(ASIDE, line.split(" ", 2)[2]))


def test_an_answer_without_end_fills_no_memory(installed: Root) -> None:
    """Each distribution has another urllib3, and Python's own part of HTTP (Debian 12: 1.26.12)."""
    script = "/opt/repo/tests/endless.py"
    result = installed.run(["/usr/bin/python3", script, "/usr/share/evpn-host"], timeout=300)
    assert endless.faults(result.out) == {}


def test_lintian_accepts_the_packages(packages: Path) -> None:
    """It has no error and no warning about any of them."""
    debs_ = sorted(packages.glob("*.deb"))
    assert len(debs_) == 3
    argv = ["lintian", "--allow-root", "--fail-on=error,warning", *map(str, debs_)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert (result.returncode, result.stdout) == (0, "")


def test_one_version_and_one_list_of_minimums() -> None:
    """The package's version and dependencies are those of pyproject.toml."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    changelog = (REPO / "packaging/debian/changelog").read_text()
    assert changelog.startswith(f"evpn-host ({project['version']}) ")
    assert project["version"] == __version__
    minimums = {tuple(word.split(">=")) for word in project["dependencies"]}
    build_section, _, run_section = CONTROL.partition("\nPackage: evpn-host\n")
    minimum = re.compile(r"^ python3-(\S+) \(>= ([\d.]+)\),$", re.MULTILINE)
    assert set(minimum.findall(run_section)) == minimums
    assert set(minimum.findall(build_section)) <= minimums


def test_the_example_has_every_setting() -> None:
    """Each is a comment in config.yaml, with its default where it has one."""
    text = (REPO / "packaging/config.yaml").read_text()
    assert YAML(typ="safe").load(text) is None
    shown = YAML(typ="safe").load(re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE))
    settings = config._convert(shown)
    assert set(shown) == set(config.Config.__struct_fields__)
    default = config.Config()
    for name in ("connect_timeout", "timeout", "retries"):
        assert getattr(settings, name) == getattr(default, name)


SCRIPTS = [f"packaging/{name}" for name in ("install.sh", "build-deb", "build-zipapp")]
SCRIPTS += [f"examples/review/{name}" for name in ("review", "publish", "follow")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_plain_sh(root_user: None, name: str) -> None:
    """shellcheck and the shell itself have no complaint."""
    del root_user
    script = str(REPO / name)
    shellcheck = program("shellcheck", "shellcheck")
    for argv in (["sh", "-n", script], [shellcheck, script]):
        result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["build-deb", "build-zipapp"])
@pytest.mark.parametrize("words", [["--help"], [""], ["--msgspeck"], ["a", "b"], ["a", "-x"]])
def test_builds_refuse_wrong_usage(tmp_path: Path, name: str, words: list[str]) -> None:
    """With wrong usage nothing is built, and no folder gets the name of an option."""
    copy = tmp_path / "packaging" / name
    copy.parent.mkdir()
    shutil.copy(REPO / "packaging" / name, copy)
    result = subprocess.run([copy, *words], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: packaging/" in result.stderr
    assert list(tmp_path.iterdir()) == [copy.parent]


def test_the_package_has_its_files_in_their_places(installed: Root) -> None:
    """It has command, units, manual page and completions; it enables nothing, and sets nothing."""
    listed = set(installed.run(["dpkg", "--listfiles", "evpn-host"]).out.split())
    units = {f"/usr/lib/systemd/system/{f.name}" for f in (REPO / "packaging/systemd").iterdir()}
    assert listed >= units | {
        "/usr/bin/evpn-host",
        "/usr/share/man/man8/evpn-host.8.gz",
        "/usr/share/bash-completion/completions/evpn-host",
        "/usr/share/zsh/vendor-completions/_evpn-host",
        "/usr/share/fish/vendor_completions.d/evpn-host.fish",
    }
    assert not [path for path in listed if path.startswith(("/lib/", "/usr/lib/python3/"))]
    assert installed.run(["find", "/etc", "-name", "*evpn*"]).out.split() == ["/etc/evpn-host"]
    version = installed.run(["evpn-host", "--version"]).out
    assert version == f"evpn-host, version {__version__}\n"


def test_the_manual_page_has_every_verb_and_option(
    installed: Root, packages: Path, tmp_path: Path
) -> None:
    """The manual page has the verbs and options of `evpn-host --help`."""
    [deb] = packages.glob(f"evpn-host_{__version__}_all.deb")
    subprocess.run(["dpkg-deb", "--extract", deb, tmp_path], check=True)
    argv = ["gzip", "-dc", f"{tmp_path}/usr/share/man/man8/evpn-host.8.gz"]
    page = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    page = page.replace(r"\-", "-")
    verbs = re.findall(r"^  ([a-z-]+)  ", installed.run(["evpn-host", "--help"]).out, re.MULTILINE)
    assert len(verbs) > 10
    for verb, help_ in zip(verbs, together(installed, [[v, "--help"] for v in verbs]), strict=True):
        section = page.partition(f'.SS "evpn-host {verb}')[2].partition(".SS")[0]
        for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_.out, re.MULTILINE):
            assert option in section, (verb, option)


def test_bash_completes_verbs(installed: Root) -> None:
    """bash completes verbs by the package's file."""
    script = """
    . /usr/share/bash-completion/completions/evpn-host
    COMP_WORDS=(evpn-host inst) COMP_CWORD=1
    _evpn_host_completion evpn-host
    echo "${COMPREPLY[@]}"
    """
    assert installed.run(["bash", "-c", script]).out == "install-units\n"


def test_the_same_bytes_with_the_distributions_libraries(
    installed: Root, cases: list[Path]
) -> None:
    """Jinja2, msgspec and so on of Debian 12 and 13 render the files of the snapshots."""
    hosts = [case for case in cases if case.stem != "fleet"]
    with tempfile.TemporaryDirectory() as folder:
        renderings = [
            f"render -b {backend} -p /opt/repo/{case.relative_to(REPO)}"
            f" -o {folder}/{case.stem}-{backend}".split()
            for backend in ("netplan", "ifupdown")
            for case in hosts
        ]
        assert {result.code for result in together(installed, renderings)} == {0}
        rendered = {p.relative_to(folder): p for p in Path(folder).rglob("*") if p.is_file()}
        assert len(rendered) > 100
        for path, file in rendered.items():
            assert file.read_bytes() == (REPO / "snapshots" / path).read_bytes(), path


def test_the_same_refusals_with_the_distributions_libraries(
    installed: Root, evpn_host: Callable[..., Result]
) -> None:
    """The distribution's libraries give the same refusals, with the same messages."""
    checks = [["check", "-p", f"/opt/repo/{payload.relative_to(REPO)}"] for payload in REFUSED]
    for payload, theirs in zip(REFUSED, together(installed, checks), strict=True):
        ours = evpn_host("check", "-p", payload)
        assert (theirs.code, theirs.err) == (1, ours.err), payload


def test_an_older_version_refuses_newer_state(installed: Root) -> None:
    """dpkg keeps the newer version that wrote the record; another upgrade works."""
    newer = record.FORMAT + 1
    script = "mkdir -p /var/lib/evpn-host && cat > /var/lib/evpn-host/record.json"
    one_line = f'{{"version":"9","format":{newer},"more":{{"format":1}}}}'
    try:
        for state in (f'{{\n "format": {newer},\n "version": "9"\n}}\n', one_line):
            installed.run(["sh", "-c", script], input=state)
            again = install(installed, f"evpn-host={__version__}+next", check=False)
            assert again.code != 0
            assert "is of a newer version" in again.err + again.out
            status = installed.run(["evpn-host", "status"], check=False)
            assert "is of a newer version" in status.err
    finally:
        installed.run(["rm", "-r", "/var/lib/evpn-host"])
    install(installed, f"evpn-host={__version__}+next")
    install(installed)


def test_the_package_removes_units_of_a_wheel(installed: Root) -> None:
    """It says so when it removes units of install-units; an enabled unit stays enabled."""
    unit = "/etc/systemd/system/evpn-host.timer"
    link = "/etc/systemd/system/timers.target.wants/evpn-host.timer"
    script = f"""
    sed '1i # Written by evpn-host install-units, which writes it anew.' \
        /opt/repo/packaging/systemd/evpn-host.timer > {unit}
    systemctl --quiet enable evpn-host.timer
    readlink {link}
    """
    assert installed.run(["sh", "-c", script]).out == f"{unit}\n"
    again = [*APT, "--reinstall", "install", f"evpn-host={__version__}"]
    output = installed.run(again, timeout=300, env=NONINTERACTIVE).out
    assert f"evpn-host: this package's unit replaces {unit} of install-units" in output
    assert installed.run(["sh", "-c", f"ls {unit}"], check=False).code != 0
    packaged = "/usr/lib/systemd/system/evpn-host.timer"
    assert installed.run(["readlink", "-f", link]).out == f"{packaged}\n"
    assert installed.run(["systemctl", "is-enabled", "evpn-host.timer"]).out == "enabled\n"
    installed.run(["systemctl", "--quiet", "disable", "evpn-host.timer"])


def test_purge_leaves_nothing(installed: Root, before: str) -> None:
    """Every file of the tree is as it was before the package and its dependencies."""
    argv = [*APT, "purge", "--auto-remove", "evpn-host"]
    installed.run(argv, timeout=300, env=NONINTERACTIVE)
    assert files(installed).splitlines() == before.splitlines()
