"""The lab's commands before anything boots: help, wrong choices, and what they install."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import build
from tests.conftest import REPO
from tests.terminal import Terminal

COMMANDS = ("shell", "demo")


def run(argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository."""
    return subprocess.run(
        argv,
        cwd=REPO,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )


def module(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the lab with the Python of the tests."""
    return run([sys.executable, "-m", f"lab.{name}", *words], **environment)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_shows_help(name: str, option: str) -> None:
    """Nothing boots."""
    result = module(name, option)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: lab/{name}")
    assert not result.stderr


def test_help_of_the_shell_names_choices_and_commands() -> None:
    """It names every suite, backend, and command of the lab."""
    text = module("shell", "--help").stdout
    own = [path.name for path in (REPO / "lab/guest/bin").iterdir()]
    for word in ("trixie", "bookworm", "netplan", "ifupdown", "Ctrl-]", *own):
        assert word in text, word


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shell", "sid"], "'sid' is not one of 'trixie', 'bookworm'"),
        (["shell", "trixie", "networkd"], "'networkd' is not one of 'netplan', 'ifupdown'"),
        (["shell", "--fast"], "--fast"),
        (["shell", "trixie", "netplan", "more"], "(more)"),
        (["demo", "trixie"], "(trixie)"),
    ],
    ids=" ".join,
)
def test_names_a_wrong_word(words: list[str], message: str) -> None:
    """The message is one line."""
    result = module(*words)
    assert result.returncode == 2
    assert result.stderr.startswith(f"lab/{words[0]}: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_names_a_wrong_machine(name: str) -> None:
    """The environment chooses the machine."""
    result = module(name, EVPN_HOST_LAB_MACHINE="kvm")
    message = "EVPN_HOST_LAB_MACHINE=kvm: is not one of uml, qemu"
    assert (result.returncode, result.stderr) == (2, f"lab/{name}: {message}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_says_why_there_can_be_no_lab(name: str) -> None:
    """The message is one line."""
    code = f"import os; os.geteuid = lambda: 1000; from lab import command, {name} as it; "
    result = run([sys.executable, "-c", f"{code}command.run(it.main, 'lab/{name}')"])
    message = f"lab/{name}: no lab here: the lab's machine needs root\n"
    assert (result.returncode, result.stderr) == (1, message)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose programs come before the computer's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(path: Path, script: str) -> None:
    """Write a program."""
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)


@pytest.mark.parametrize("name", COMMANDS)
def test_needs_root_before_it_installs_anything(name: str, programs: Path) -> None:
    """Another user gets one line that says so."""
    program(programs / "id", "echo 1000\n")
    program(programs / "python3", "exit 99\n")
    result = run([str(REPO / "lab" / name)])
    message = f"lab/{name} needs root for its virtual machine: sudo lab/{name}\n"
    assert (result.returncode, result.stderr) == (1, message)


# --- lab/venv on a computer whose python3 has no ensurepip ---


NO_ENSUREPIP = """
case "$1 $2" in
"-c "*) [ -e "$0-venv" ] || { echo "Traceback: No module named 'ensurepip'" >&2; exit 1; } ;;
"-m venv")
    mkdir -p .venv/bin
    printf '#!/bin/sh\\n' > .venv/bin/python
    chmod 755 .venv/bin/python ;;
esac
"""
PAGES = 'for line in 1 2 3; do echo "Get:$line"; echo "warning $line" >&2; done\n'


@pytest.fixture
def scratch(tmp_path: Path, programs: Path) -> Path:
    """Return a copy of what lab/venv needs, on such a computer and for root."""
    (tmp_path / "copy/lab").mkdir(parents=True)
    for name in ("pyproject.toml", "lab/venv"):
        shutil.copy(REPO / name, tmp_path / "copy" / name)
    program(programs / "id", "echo 0\n")
    program(programs / "python3", NO_ENSUREPIP)
    program(programs / "apt-get", f'{PAGES}[ "$1" = update ] || touch {programs}/python3-venv\n')
    return tmp_path / "copy"


def test_venv_says_what_it_installs(scratch: Path) -> None:
    """It shows neither a traceback nor the output of apt-get."""
    result = run([str(scratch / "lab/venv")])
    assert result.stdout == f"{scratch}/.venv/bin/python\n"
    assert result.stderr == (
        "lab: installing python3-venv with apt-get\n"
        "lab: installing the project and its tools into .venv\n"
    )
    again = run([str(scratch / "lab/venv")])
    assert (again.stdout, again.stderr) == (result.stdout, "")


def test_venv_shows_the_output_of_apt_get_when_that_fails(scratch: Path, programs: Path) -> None:
    """The exit code is that of apt-get."""
    program(programs / "apt-get", f"{PAGES}exit 100\n")
    result = run([str(scratch / "lab/venv")])
    assert result.returncode == 100
    first, *rest = result.stderr.splitlines()
    assert first == "lab: installing python3-venv with apt-get"
    assert "warning 3" in rest
    assert not result.stdout


def test_venv_without_root_names_the_missing_package(scratch: Path, programs: Path) -> None:
    """Only root can install it."""
    program(programs / "id", "echo 1000\n")
    result = run([str(scratch / "lab/venv")])
    message = "lab: python3 lacks venv and ensurepip (Debian's package python3-venv)\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", message)


def test_a_build_names_the_tools_that_it_installs(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the packages."""
    program(programs / "apt-get", PAGES)
    monkeypatch.setattr(build, "TOOLS", {"tool-that-nobody-has": "mmdebstrap", "sh": "dash"})
    monkeypatch.setattr(build, "KEYRING", programs)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    build._install_tools()
    assert capsys.readouterr().err == "lab: installing mmdebstrap with apt-get\n"


# --- The terminal, with a machine that does not answer ---


SILENT = """
from contextlib import contextmanager
from types import SimpleNamespace
from lab import command, shell

class Silent:
    running, code, on = True, None, True
    def session(self, argv, listener, window, env):
        self.listener = listener
        listener("out", f"window {window}, {env['TERM']}\\r\\n".encode())
        return self
    def send(self, data): self.listener("out", data.hex().encode())
    def signal(self, number): pass
    def resize(self, window): pass

@contextmanager
def booted(suite, backend):
    yield SimpleNamespace(machine=Silent())

command.booted = booted
command.run(shell.main, "lab/shell")
"""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Run lab/shell with a machine that does not answer, until it uses its terminal."""
    monkeypatch.chdir(REPO)
    terminal = Terminal([sys.executable, "-c", SILENT], {})
    try:
        terminal.wait(r"window \(30, 100\), xterm\r+\n")
        terminal.wait_for_keys()
        yield terminal
    finally:
        terminal.close()


def test_three_escapes_end_the_shell(silent: Terminal) -> None:
    """Ctrl-] three times within a second ends it, and no other keys. The terminal is restored."""
    silent.type("\x03\x04exit\r\x1a")
    silent.type("\x1d\x1dx\x1d")
    silent.wait("1d1d781d")
    silent.type("\x1d\x1d\x1d")
    assert silent.end() == 1
    assert silent.shown.endswith("lab: you left the shell\r\n")
    assert termios.tcgetattr(silent.program_end) == silent.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_shell(silent: Terminal, number: signal.Signals) -> None:
    """The terminal is restored then too."""
    silent.program.send_signal(number)
    assert silent.end() == 128 + number
    assert termios.tcgetattr(silent.program_end) == silent.before
