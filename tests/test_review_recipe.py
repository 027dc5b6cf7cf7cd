"""The recipe of examples/review: its own commands, in a repository with a bare remote."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lab.result import Result
from tests import fabrics
from tests.conftest import REPO
from tests.strategies import Json, as_yaml, vnet
from tests.test_review import git

RECIPE = REPO / "examples/review"
TOOLS = ("review", "publish", "follow")
HOSTS = 6


def pipeline(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((RECIPE / name).read_text())


def commands(kind: str, job: str) -> list[str]:
    """Return the commands of a job, those that come after a failure too."""
    if kind == "github":
        steps = pipeline("github.yml")["jobs"][job]["steps"]
        return [step["run"] for step in steps if "run" in step]
    entry = pipeline("gitlab.yml")[job]
    return [*entry["script"], *entry.get("after_script", [])]


class Forge:
    """A remote with a branch main, a clone, and the variables that a forge gives a job."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.remote, self.clone = folder / "remote.git", folder / "clone"
        git(folder, "init", "-q", "--bare", "-b", "main", str(self.remote))
        git(folder, "clone", "-q", str(self.remote), str(self.clone))
        git(self.clone, "checkout", "-q", "-b", "main")
        tools = self.clone / ".evpn-host"
        tools.mkdir()
        for name in TOOLS:
            (tools / name).write_bytes((RECIPE / name).read_bytes())
            (tools / name).chmod(0o755)
        command = f'#!/bin/sh\nPYTHONPATH={REPO} exec {sys.executable} -m generator "$@"\n'
        (tools / "evpn-host.pyz").write_text(command)
        (tools / "evpn-host.pyz").chmod(0o755)
        programs = folder / "bin"
        programs.mkdir()
        self.posted = folder / "posted.md"
        for name in ("gh", "curl"):  # each gets the comment as the file comment.md
            (programs / name).write_text(f"#!/bin/sh\ncp comment.md {self.posted}\n")
            (programs / name).chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    def commit(self, document: Json, branch: str) -> None:
        (self.clone / "fleet.yaml").write_bytes(as_yaml(document))
        git(self.clone, "add", "-A")
        git(self.clone, "commit", "-q", "-m", "change")
        git(self.clone, "push", "-q", "origin", f"HEAD:{branch}")

    def run(self, job: str, *, label: bool = False) -> tuple[int, str]:
        """Run a job; return its exit code, and its whole output."""
        code, output = 0, ""
        for command in self._script(job):
            result = subprocess.run(
                ["bash", "-e", "-c", command],
                cwd=self.clone,
                env=self._environment(label=label),
                capture_output=True,
                text=True,
                check=False,
            )
            code, output = code or result.returncode, output + result.stdout + result.stderr
        return code, output

    def _script(self, job: str) -> list[str]:
        """Return the scripts of a job, each of which a forge runs in a shell of its own."""
        if self.kind == "github":
            return commands("github", job)
        entry = pipeline("gitlab.yml")[job]
        return ["\n".join(entry["script"]), *entry.get("after_script", [])]

    def _environment(self, *, label: bool) -> dict[str, str]:
        common = {
            "PATH": self.path,
            "EVPN_HOST": ".evpn-host/evpn-host.pyz",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "HOME": str(self.clone),
        }
        if self.kind == "github":
            own = {"GITHUB_BASE_REF": "main", "GITHUB_REF_NAME": "main", "NUMBER": "1"}
            return common | own | {"ALLOW_RISK": "true" if label else "false"}
        return common | {
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "CI_MERGE_REQUEST_LABELS": "net,risk accepted" if label else "net",
            "CI_COMMIT_BRANCH": "main",
            "REMOTE": str(self.remote),
        }

    def tree(self) -> list[str]:
        """Return the hosts whose files are on the remote's branch main."""
        argv = ["git", "ls-tree", "--name-only", "main:hosts"]
        result = subprocess.run(argv, cwd=self.remote, capture_output=True, text=True, check=True)
        return result.stdout.split()


@pytest.fixture(params=["github", "gitlab"])
def forge(request: pytest.FixtureRequest, tmp_path: Path) -> Forge:
    forge_ = Forge(tmp_path, request.param)
    forge_.commit(fabrics.before(HOSTS), "main")
    return forge_


def with_red_new() -> Json:
    document = fabrics.before(HOSTS)
    ports = [{"name": port} for port in fabrics.ports_of(1, 2)]
    new = vnet(4155, name="red-new", prefixes=["10.50.5.254/24"], ports=ports)
    return document | {"generation": 2, "vnets": [*document["vnets"], new]}


def test_from_a_branch_to_the_tree(forge: Forge) -> None:
    """The comment names the V-Net that a branch adds; each merge updates the tree."""
    assert forge.run("publish")[0] == 0
    names = [fabrics.name(number) for number in range(HOSTS)]
    assert forge.tree() == names
    git(forge.clone, "checkout", "-q", "-b", "red-new")
    forge.commit(with_red_new(), "red-new")
    code, output = forge.run("review")
    assert code == 0, output
    comment = forge.posted.read_text()
    assert (
        "| `+ V-Net red-new (VNI 4155, 10.50.5.254/24, VPC red)` | 2: `srv0001, srv0002` |"
        in comment
    )
    git(forge.clone, "checkout", "-q", "main")
    git(forge.clone, "merge", "-q", "red-new")
    git(forge.clone, "push", "-q", "origin", "main")
    assert forge.run("publish")[0] == 0
    argv = ["git", "grep", "-l", "nbr-4155", "main", "--", "hosts/*/etc/netplan/*"]
    log = subprocess.run(argv, cwd=forge.remote, capture_output=True, text=True, check=True)
    assert {line.split("/")[1] for line in log.stdout.split()} == {"srv0001", "srv0002"}
    before = (forge.remote / "refs/heads/main").read_text()
    assert forge.run("publish")[0] == 0  # nothing has changed, so nothing is committed
    assert (forge.remote / "refs/heads/main").read_text() == before


def test_what_hosts_are_served_follows_the_branch(forge: Forge, tmp_path: Path) -> None:
    """Hosts get the merged payload, whatever the clone has; without one the old payload stays."""
    served = tmp_path / "payloads"
    served.mkdir()

    def follow(branch: str) -> int:
        argv = [str(forge.clone / ".evpn-host/follow"), branch, str(served)]
        return subprocess.run(argv, cwd=forge.clone, capture_output=True, check=False).returncode

    assert follow("main") == 0
    merged = (served / "fleet.yaml").read_bytes()
    assert merged == as_yaml(fabrics.before(HOSTS))
    git(forge.clone, "checkout", "-q", "-b", "red-new")
    forge.commit(with_red_new(), "red-new")
    assert follow("main") == 0
    assert (served / "fleet.yaml").read_bytes() == merged
    git(forge.clone, "rm", "-q", "fleet.yaml")
    git(forge.clone, "commit", "-q", "-m", "none")
    git(forge.clone, "push", "-q", "origin", "HEAD:none")
    assert follow("none") != 0
    assert (served / "fleet.yaml").read_bytes() == merged
    assert follow("red-new") == 0
    assert [path.name for path in served.iterdir()] == ["fleet.yaml"]
    assert (served / "fleet.yaml").read_bytes() == as_yaml(with_red_new())


def test_the_first_payload_has_no_problem(evpn_host: Callable[..., Result]) -> None:
    """Its V-Nets come last: docs/review.md adds one at the end."""
    text = (RECIPE / "fleet.yaml").read_text()
    assert list(YAML(typ="safe").load(text))[-1] == "vnets"
    result = evpn_host("check", "-p", RECIPE / "fleet.yaml")
    assert (result.code, result.err) == (0, "")


def test_risk_is_refused_unless_a_label_says_so(forge: Forge) -> None:
    """A risk fails the job unless a label allows it; the comment comes either way."""
    document = fabrics.before(HOSTS)
    document["hosts"][3]["server"]["asn"] += 1000
    git(forge.clone, "checkout", "-q", "-b", "risky")
    forge.commit(document, "risky")
    code, output = forge.run("review")
    assert code == 1, output
    assert "A label on the request lets them pass." in output
    assert "all sessions end" in forge.posted.read_text()
    code, output = forge.run("review", label=True)
    assert code == 0, output


def test_problems_of_a_payload_are_the_comment(forge: Forge) -> None:
    """The problems of a payload are the comment, as code: a name in them is no Markdown."""
    document = fabrics.before(HOSTS)
    document["vnets"][1]["vxlanID"] = "<b>1</b>"
    git(forge.clone, "checkout", "-q", "-b", "bad")
    forge.commit(document, "bad")
    assert forge.run("review", label=True)[0] == 1
    lines = forge.posted.read_text().splitlines()
    assert lines[0] == "### evpn-host: the payload has problems"
    assert lines[2:] == [
        '    evpn-host: vnets[1].vxlanID: "<b>1</b>" is not a whole number (V-Net red-a)'
    ]


def test_a_first_payload_passes(forge: Forge) -> None:
    """A first payload passes, although there is nothing to compare it with."""
    git(forge.clone, "rm", "-q", "fleet.yaml")
    git(forge.clone, "commit", "-q", "-m", "none")
    git(forge.clone, "push", "-q", "origin", "main")
    git(forge.clone, "checkout", "-q", "-b", "first")
    forge.commit(fabrics.before(HOSTS), "first")
    assert forge.run("review")[0] == 0
    assert forge.posted.read_text() == "### evpn-host: fleet.yaml is new, and has no problem\n"


def test_scripts_are_executable() -> None:
    """The scripts are executable, and so is a copy of them."""
    for name in TOOLS:
        assert (RECIPE / name).stat().st_mode & stat.S_IXUSR
