"""The command as a user or a script sees it: exit codes, the two streams, and no traceback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from generator import __version__
from generator.errors import did_you_mean
from lab.result import Result
from tests.conftest import REPO

Command = Callable[..., Result]

K8S01, FLEET = REPO / "examples/k8s01.json", REPO / "examples/fleet.json"


def process(*argv: object, stdout: int = subprocess.PIPE, stdin: str = "") -> Result:
    """Run the command as a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "generator", *map(str, argv)],
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return Result(result.returncode, result.stdout or "", result.stderr)


def top_folders(folder: Path) -> set[str]:
    return {child.name for child in folder.iterdir()}


def test_module_and_command_are_the_same() -> None:
    """`python -m generator` calls itself `evpn-host` too."""
    command = Path(sys.executable).with_name("evpn-host")
    installed = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert process("--version").out == installed.stdout == f"evpn-host, version {__version__}\n"


def test_the_list_of_verbs_is_whole(evpn_host: Command) -> None:
    """Each verb says in a short sentence what it does; none is cut."""
    lines = evpn_host("--help").out.partition("Commands:\n")[2].splitlines()
    assert len(lines) > 15
    assert [line for line in lines if not re.fullmatch(r"  [\w-]+ +\S.*[^.]\.", line)] == []


def test_renders_a_host(evpn_host: Command, tmp_path: Path) -> None:
    """A Host is written to DIR/etc; -H takes its name in letters of either case, and no other."""
    assert evpn_host("render", "-p", K8S01, "-o", tmp_path / "1").code == 0
    assert evpn_host("render", "-p", K8S01, "-o", tmp_path / "2", "-H", "k8s01").code == 0
    assert top_folders(tmp_path / "1") == top_folders(tmp_path / "2") == {"etc"}
    other = evpn_host("render", "-p", K8S01, "-o", tmp_path / "3", "-H", "other")
    assert (other.code, other.out) == (1, "")
    assert "no host other in role EVPN-VTEP; it has: K8S01" in other.err
    assert not (tmp_path / "3").exists()


def test_renders_a_fleet(evpn_host: Command, tmp_path: Path) -> None:
    """Each VTEP of a Fleet is written to DIR/<host>/etc; with -H one of them to DIR/etc."""
    result = evpn_host("render", "-p", FLEET, "-o", tmp_path / "all")
    assert result.code == 0
    assert "hosts left out, because they are not EVPN-VTEP: gpu-node-10 (generic)" in result.err
    assert top_folders(tmp_path / "all") == {"mgmt-srv-01", "mgmt-srv-02"}
    evpn_host("render", "-p", FLEET, "-o", tmp_path / "one", "-H", "MGMT-SRV-02")
    one, same = tmp_path / "one/etc", tmp_path / "all/mgmt-srv-02/etc"
    assert {p.relative_to(one): p.read_bytes() for p in one.rglob("*") if p.is_file()} == {
        p.relative_to(same): p.read_bytes() for p in same.rglob("*") if p.is_file()
    }


def test_rendered_files_with_passwords_are_not_readable_by_all(
    evpn_host: Command, tmp_path: Path
) -> None:
    """The modes of a rendered tree are those of a host."""
    evpn_host("render", "-p", K8S01, "-o", tmp_path)
    assert (tmp_path / "etc/frr/frr.conf").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "etc/netplan/60-evpn-host.yaml").stat().st_mode & 0o777 == 0o600


def test_reads_a_payload_from_standard_input(tmp_path: Path) -> None:
    """`-p -` reads the payload from standard input."""
    result = process("render", "-p", "-", "-o", tmp_path, stdin=K8S01.read_text())
    assert result.code == 0
    assert top_folders(tmp_path) == {"etc"}


def test_check_warns_on_standard_error(evpn_host: Command) -> None:
    """Warnings go to standard error, standard output stays empty, and the exit code is 0."""
    result = evpn_host("check", "-p", K8S01)
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("warning: links[0].mtu: 1500 is too small")


def test_refusal_names_every_problem(evpn_host: Command, tmp_path: Path) -> None:
    """Each problem has a line of its own on standard error, and the exit code is 1."""
    document = json.loads(K8S01.read_text())
    document["server"]["asn"] = 0
    document["vnets"][1] |= {"vxlanID": 70000000, "name": "coke"}
    file = tmp_path / "p.json"
    file.write_text(json.dumps(document))
    result = evpn_host("check", "-p", file)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "evpn-host: server.asn: 0 is not in 1–4294967294",
        "evpn-host: vnets[1].vxlanID: 70000000 is not in 2–16777215 (V-Net coke)",
    ]


def bad_inputs(folder: Path) -> dict[str, tuple[list[object], int, str]]:
    """Return command lines that must fail: arguments, exit code, a part of the message."""
    (folder / "folder").mkdir()
    (folder / "binary").write_bytes(bytes(range(256)) * 4)
    (folder / "empty").touch()
    (folder / "deep").write_text("[" * 200000)
    (folder / "number").write_text("9" * 5000)
    with (folder / "huge").open("wb") as huge:
        huge.truncate((64 << 20) + 1)
    (folder / "file").touch()
    config = folder / "root/etc/evpn-host/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("controler: x\n")
    broken = folder / "broken/etc/evpn-host/config.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("a: [\n")
    out = ["-o", folder / "out"]
    return {
        "no verb": ([], 2, "Usage: evpn-host"),
        "unknown verb": (["rendr"], 2, "No such command 'rendr'"),
        "unknown option": (["check", "--payloads", "x"], 2, "No such option"),
        "no output": (["render", "-p", K8S01], 2, "Missing option '-o'"),
        "unknown backend": (["render", "-p", K8S01, *out, "-b", "nm"], 2, "'nm' is not one of"),
        "no payload": (["check"], 2, "no payload: give -p SRC"),
        "missing file": (["check", "-p", folder / "none"], 1, "No such file or directory"),
        "a folder": (["check", "-p", folder / "folder"], 1, "Is a directory"),
        "no UTF-8 name": (["check", "-p", "a\udcffb"], 1, "No such file or directory"),
        "empty": (["check", "-p", folder / "empty"], 1, "is empty"),
        "binary": (["check", "-p", folder / "binary"], 1, "is not UTF-8"),
        "deep": (["check", "-p", folder / "deep"], 1, "nested more than 32 deep"),
        "a long number": (["check", "-p", folder / "number"], 1, "payload"),
        "huge": (["check", "-p", folder / "huge"], 1, "is larger than 64 MiB"),
        "nobody answers": (["check", "-p", "http://127.0.0.1:1/p"], 1, "Connection refused"),
        "no URL": (["check", "-p", "http://"], 1, "http://"),
        "output is a file": (["render", "-p", K8S01, "-o", folder / "file"], 2, "is a file"),
        "output in a file": (
            ["render", "-p", K8S01, "-o", folder / "file/x"],
            1,
            "Not a directory",
        ),
        "no folder to be made": (
            ["render", "-p", K8S01, "-o", "/proc/evpn-host"],
            1,
            "/proc/evpn-host",
        ),
        "no host named": (["render", "-p", FLEET, *out, "-H", "x"], 1, "has no host x"),
        "escape in a host": (["render", "-p", FLEET, *out, "-H", "\x1b[2J"], 1, "\\x1b[2J"),
        "unknown setting": (["diff", "--root", folder / "root"], 2, "config.yaml"),
        "setting in no YAML": (["diff", "--root", folder / "broken"], 2, "is not YAML"),
        "root is a file": (["apply", "-p", K8S01, "--root", folder / "file"], 2, "is a file"),
        "nothing to roll back": (["rollback", "--root", folder / "out"], 1, "evpn-host: "),
        # An empty argument means neither this folder, nor the controller, nor any host.
        "empty root": (["apply", "-p", K8S01, "--root", ""], 2, "'--root': is empty"),
        "empty output": (["render", "-p", K8S01, "-o", ""], 2, "'--output': is empty"),
        "empty payload": (["diff", "-p", "", "--root", folder], 2, "'--payload': is empty"),
        "empty host": (["render", "-p", FLEET, *out, "-H", ""], 2, "'--host': is empty"),
        "empty V-Net": (["guests", "--format", "nad", ""], 2, "is empty"),
        "no number to wait": (
            ["apply", "-p", K8S01, "--wait", "nan"],
            2,
            "nan is not in the range",
        ),
        "endless wait": (["apply", "-p", K8S01, "--wait", "inf"], 2, "inf is not in the range"),
        "negative wait": (["apply", "-p", K8S01, "--wait", "-1"], 2, "-1.0 is not in the range"),
    }


AS_A_PROCESS = {"no verb", "no UTF-8 name", "escape in a host"}
"""Cases without arguments, or whose arguments pass through the system's encoding."""


def test_refuses_bad_inputs_without_a_traceback(evpn_host: Command, tmp_path: Path) -> None:
    """Standard error says what is wrong, without raw control characters."""
    failures = {}
    for name, (argv, code, message) in bad_inputs(tmp_path).items():
        result = (process if name in AS_A_PROCESS else evpn_host)(*argv)
        as_expected = result.code == code and message in result.err and result.out == ""
        if not as_expected or "Traceback" in result.err or "\x1b" in result.err:
            failures[name] = result
    assert failures == {}


def test_says_nothing_about_a_closed_pipe() -> None:
    """A reader may go away, as in `evpn-host schema | head -1`."""
    read, write = os.pipe()
    os.close(read)
    result = process("schema", stdout=write)
    os.close(write)
    assert result.err == ""
    assert result.code == 141


CLOSED = {
    # Command lines of a shell, their exit codes, and a part of their standard error.
    "schema >&-": (74, "standard output: Bad file descriptor"),
    "schema >/dev/full": (74, "standard output: No space left on device"),
    "--help >&-": (74, "standard output: Bad file descriptor"),
    "schema >&- 2>&-": (74, ""),
    "schema <&- 2>&- >/dev/null": (0, ""),
    "check -p - <&-": (1, "standard input: can't be read: it is closed"),
    "check -p $K8S01 <&- >&-": (0, ""),
    "check -p /none 2>/dev/full": (1, ""),
    "rendr 2>&-": (2, ""),
    "diff -b ifupdown -p $K8S01 --root $ROOT >&-": (2, "standard output: Bad file descriptor"),
    "status --root $ROOT >/dev/full": (74, "standard output: No space left on device"),
}


@pytest.mark.parametrize("line", CLOSED)
def test_closed_or_full_streams(line: str, tmp_path: Path) -> None:
    """Lost results are an error with a code of its own; lost messages are none."""
    result = in_shell(line, tmp_path)
    code, message = CLOSED[line]
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert "Traceback" not in result.err
    assert "Exception ignored" not in result.err


def in_shell(line: str, root: Path) -> Result:
    """Run the command by a shell, which may close its standard input and output."""
    result = subprocess.run(
        ["sh", "-c", f'"$PYTHON" -m generator {line}'],
        env={**os.environ, "PYTHON": sys.executable, "K8S01": str(K8S01), "ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Result(result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize(
    ("streams", "code"), {"<&- >&- 2>&-": 74, ">/dev/full 2>/dev/full": 74, "2>&-": 0}.items()
)
def test_apply_is_not_harmed_by_closed_streams(streams: str, code: int, tmp_path: Path) -> None:
    """apply writes the same files, and no output gets into one of them."""
    apply = "apply -v -b ifupdown -p $K8S01 --root $ROOT"
    usual, odd = tmp_path / "usual", tmp_path / "odd"
    assert in_shell(apply, usual).code == 0
    assert in_shell(f"{apply} {streams}", odd).code == code
    contents = [
        {str(f.relative_to(root)): f.read_bytes() for f in (root / "etc").rglob("*") if f.is_file()}
        for root in (usual, odd)
    ]
    assert contents[0]
    assert contents[0] == contents[1]
    records = [
        json.loads((root / "var/lib/evpn-host/record.json").read_text())
        | {"time": "", "seconds": 0}
        for root in (usual, odd)
    ]
    assert records[0] == records[1]
    assert in_shell(f"{apply} {streams}", odd).code == 0  # nothing to do, nothing to print


def test_a_reader_of_messages_may_go_away(tmp_path: Path) -> None:
    """`apply -v 2>&1 | head -1` applies all the same."""
    line = "apply -v -b ifupdown -p $K8S01 --root $ROOT 2>&1 >/dev/null | true"
    assert in_shell(line, tmp_path).code == 0
    status = in_shell("status --root $ROOT", tmp_path)
    assert status.out.endswith("\ndiffers: last apply: written, not activated\n")


def test_diff_has_colours_on_a_terminal_only(tmp_path: Path) -> None:
    """It has none in a pipe, nor where NO_COLOR is set."""
    (tmp_path / "etc/netplan").mkdir(parents=True)
    (tmp_path / "etc/netplan/01.yaml").touch()
    argv = [sys.executable, "-m", "generator", "diff", "-p", K8S01, "--root", tmp_path]

    def on_a_terminal(**environment: str) -> bytes:
        terminal, program_end = os.openpty()
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        output = b""
        with subprocess.Popen(
            list(map(str, argv)),
            stdin=subprocess.DEVNULL,
            stdout=program_end,
            stderr=subprocess.DEVNULL,
            env=inherited | environment,
        ):
            os.close(program_end)
            try:
                while more := os.read(terminal, 1 << 16):
                    output += more
            except OSError:  # reading a terminal fails this way at its end
                pass
        os.close(terminal)
        return output

    assert b"\x1b[32m+# Written by evpn-host;" in on_a_terminal(TERM="xterm")
    assert b"\x1b" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in process("diff", "-p", K8S01, "--root", tmp_path).out


def test_options_default_to_the_settings(evpn_host: Command, tmp_path: Path) -> None:
    """config.yaml names the controller, host and backend that the command line leaves out."""
    config = tmp_path / "etc/evpn-host/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"controller: {FLEET}\nhost: mgmt-srv-02\nbackend: ifupdown\n")
    result = evpn_host("apply", "--root", tmp_path, "--json")
    assert result.code == 0
    assert json.loads(result.out)["host"] == "mgmt-srv-02"
    assert (tmp_path / "etc/network/interfaces.d/evpn-host").exists()
    other = evpn_host("apply", "--root", tmp_path, "--json", "-H", "mgmt-srv-01")
    assert json.loads(other.out)["host"] == "mgmt-srv-01"


def test_examples_are_valid_by_the_printed_schema(evpn_host: Command) -> None:
    """`evpn-host schema` prints a valid JSON Schema, and both examples are valid by it."""
    result = evpn_host("schema")
    assert result.code == 0
    schema = json.loads(result.out)
    Draft202012Validator.check_schema(schema)
    for example in (K8S01, FLEET):
        Draft202012Validator(schema).validate(json.loads(example.read_text()))


def test_render_imports_nothing_that_acts_on_a_host(tmp_path: Path) -> None:
    """render starts fast and needs no tool of a host."""
    code = "import sys; sys.argv = sys.argv[1:]\nfrom generator.cli import main\ntry: main()\n"
    code += "finally: print(*sys.modules, sep='\\n')"
    argv = [sys.executable, "-c", code, "evpn-host", "render", "-p", K8S01, "-o", tmp_path]
    result = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert {"generator.desired.render", "jinja2"} < loaded
    assert not loaded & {
        "generator.verbs.apply",
        "generator.observed.netlink",
        "urllib.request",
        "ruamel.yaml",
    }


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("vxlanId", ["vxlanID", "name"], "did you mean vxlanID?"),
        ("K8SO1", ["K8S01", "K8S02"], "did you mean K8S01?"),
        ("vnets", ["vlans", "links"], ""),
        ("x" * 10**6, ["vnets"], ""),
        (7, ["vnets"], ""),
        ("vnets", [], ""),
    ],
)
def test_a_hint_is_the_nearest_name(name: object, known: list[str], hint: str) -> None:
    """The hint is the nearest name; there is none if no name is near, however long it is."""
    assert did_you_mean(name, known) == hint
