"""`lab/shell` for a person, in a terminal, key by key; and for a script."""

from __future__ import annotations

import re
import subprocess
import termios
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import REPO, unavailable
from tests.terminal import LIMIT, Terminal

pytestmark = [
    pytest.mark.lab,
    pytest.mark.xdist_group("tests/lab/test_shell.py"),
    pytest.mark.usefixtures("root_user"),
]
SHELL = str(REPO / "lab/shell")
PROMPT = r"root@K8S01:\S+# $"
BOOT = 10 * LIMIT
CTRL_C, CTRL_D, CTRL_U, UP = "\x03", "\x04", "\x15", "\x1b[A"


class Person:
    """A person at the shell."""

    def __init__(self) -> None:
        """Start it, and wait for its prompt."""
        self.terminal = Terminal([SHELL], {})
        try:
            shown = self.terminal.wait(f"{PROMPT}|no lab here: .*", limit=BOOT).group()
        except BaseException:
            self.terminal.close()
            raise
        if "no lab here" in shown:
            self.terminal.close()
            unavailable(shown)

    def sees(self, keys: str, pattern: str) -> re.Match[str]:
        """Press keys, wait for a pattern, and return the match."""
        after = len(self.terminal.shown)
        self.terminal.type(keys)
        return self.terminal.wait(pattern, after)

    def run(self, command: str) -> str:
        """Run a command, and return its output."""
        after = len(self.terminal.shown)
        # The end of the word is quoted, so that the command itself does not match.
        end = self.sees(f"{command}; echo do'ne'\r", rf"done\r\n[^\0]*{PROMPT}").start()
        _, _, output = self.terminal.shown[after:end].partition("\r\n")
        return output.removeprefix("\x1b[?2004l\r")  # of an editor that takes pasted text apart


@pytest.fixture(scope="module")
def people() -> Iterator[Callable[[], Person]]:
    """Give the module's shell, or a new one if a test has ended it."""
    persons: list[Person] = []

    def person() -> Person:
        if not persons or persons[-1].terminal.program.poll() is not None:
            persons.append(Person())
        return persons[-1]

    yield person
    for each in persons:
        each.terminal.close()


@pytest.fixture
def person(people: Callable[[], Person]) -> Person:
    """Give a person at a prompt in the home folder, whatever the previous test did."""
    someone = people()
    try:
        someone.sees(CTRL_C, PROMPT)
    except AssertionError:  # a test that failed left it in a program
        someone.terminal.program.terminate()
        someone.terminal.end()
        someone = people()
    someone.sees("cd\r", r"root@K8S01:~# $")
    return someone


def test_one_shell_runs_all_commands(person: Person) -> None:
    """The effects of `cd` and `export` last: one shell runs all commands."""
    person.run("cd /etc")
    person.run("export LAB_TEST=lasts")
    assert person.run("echo $PWD $(printenv LAB_TEST)") == "/etc lasts\r\n"
    assert person.run("shopt login_shell").split() == ["login_shell", "on"]


def test_arrow_up_recalls_the_last_command(person: Person) -> None:
    """The arrow recalls the last command."""
    person.run("echo once $((20 + 3))")
    person.sees(f"{UP}\r", r"[\r\n]once 23\r\n")


def test_tab_completes(person: Person) -> None:
    """Tab completes commands, files and words of the lab's own commands."""
    person.sees("iperf\t", "iperf3 ")
    person.sees(f"{CTRL_U}cat /etc/hostn\t", "/etc/hostname ")
    person.sees(f"{CTRL_U}on ns-sp\t", "on ns-spine-0 ")
    person.sees(f"{CTRL_U}underlay ns-leaf-1 of\t", "off ")
    person.sees(f"{CTRL_U}evpn-host uninst\t", "uninstall ")


def test_ctrl_c_ends_a_ping(person: Person) -> None:
    """Ctrl-C ends a ping, in the machine too."""
    person.sees("ping 10.12.0.5\r", "icmp_seq=2")
    person.sees(CTRL_C, rf"packets transmitted[^\0]*{PROMPT}")
    assert person.run("pgrep -x ping") == ""


def test_a_suspended_command_goes_on(person: Person) -> None:
    """Ctrl-Z stops a command, and `fg` goes on with it."""
    person.sees("ping 10.12.0.5\r", "icmp_seq=1")
    person.sees("\x1a", rf"Stopped\s+ping 10.12.0.5[^\0]*{PROMPT}")
    person.sees("fg\r", "icmp_seq=")
    person.sees(CTRL_C, PROMPT)


def test_programs_know_the_window(person: Person) -> None:
    """Programs know the terminal and its size, also after a change."""
    try:
        assert person.run("echo $TERM; stty size") == "xterm\r\n30 100\r\n"
        person.terminal.resize(41, 133)
        person.sees(
            "until [ \"$(stty size)\" = '41 133' ]; do sleep 0.1; done; echo n''ow\r", "now\r\n"
        )
        person.sees("top\r", r"\x1b\[41;1H|\x1b\[[\d;]*m[^\r\n]{100,133}")
        person.sees("q", PROMPT)
    finally:
        person.terminal.resize(30, 100)


def test_vtysh_runs_until_it_is_left(person: Person) -> None:
    """vtysh runs until the person leaves it, on the host and on each switch."""
    person.sees("vtysh\r", r"K8S01# $")
    person.sees("show version\r", r"FRRouting \d+[^\0]*K8S01# $")
    person.sees("exit\r", PROMPT)
    person.sees("on ns-leaf-1 vtysh\r", r"ns-leaf-1# $")
    person.sees("show bgp summary\r", r"local AS number 4200300002[^\0]*ns-leaf-1# $")
    person.sees("exit\r", PROMPT)


def test_on_runs_commands_in_other_nodes(person: Person) -> None:
    """`on` runs commands in other nodes, and lists the nodes if it does not know a name."""
    assert "10.12.0.5/16" in person.run("on controller ip -color=never -brief address")
    summary = person.run("on ns-leaf-0 vtysh -c 'show bgp summary' | grep -o 'AS number [0-9]*'")
    assert set(summary.splitlines()) == {"AS number 4200300001"}
    assert "ns-spine-0" in person.run("on nowhere true")


def test_carry_and_underlay_work_twice(person: Person) -> None:
    """`carry` and `underlay` do what the controller does, also a second time."""
    for _ in range(2):
        person.run("carry ~/examples/k8s01.json")
        vnis = person.run("on ns-leaf-2 vtysh -c 'show evpn vni' | awk '{ print $1 }'").split()
        assert {"14", "26"} <= set(vnis)
    person.run("underlay ns-leaf-0 on")
    ports = "on ns-leaf-0 bridge -oneline link show"
    assert "swp9s1" not in person.run(ports)
    person.run("underlay ns-leaf-0 off")
    assert "swp9s1" in person.run(ports)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("carry /nowhere", "carry: /nowhere: No such file or directory"),
        ("carry /etc/hostname", "carry: /etc/hostname: Expecting value"),
        ("underlay ns-leaf-2 on", "underlay: ns-leaf-2: is not one of ns-leaf-0, ns-leaf-1"),
        ("underlay ns-leaf-0", "usage: underlay LEAF on|off"),
    ],
)
def test_controller_refuses(person: Person, command: str, message: str) -> None:
    """One line says why something can't be done."""
    output = person.run(command)
    assert output.startswith(message)
    assert output.count("\n") == 1


def test_carry_goes_back(person: Person) -> None:
    """A payload that the leaves can't carry leaves them as they were."""
    person.run("carry ~/examples/k8s01.json")
    before = person.run("md5sum /var/lib/lab/fabric.json")
    person.run("""echo '{"vnets": [{"vni": "x"}]}' > /tmp/bad.json""")
    assert "the leaves can't carry it" in person.run("carry /tmp/bad.json")
    assert person.run("md5sum /var/lib/lab/fabric.json") == before


def test_much_output_arrives_whole(person: Person) -> None:
    """Much output arrives whole, and Ctrl-C ends endless output."""
    text = person.run("seq 100000 | tee /dev/stderr 2>&1 >/dev/null")
    assert text.split() == [str(number) for number in range(1, 100001)]
    person.sees("yes\r", r"(y\r\n){1000}")
    person.sees(CTRL_C, rf"\^C\r\n[^\0]*{PROMPT}")


def test_much_input_arrives_whole(person: Person) -> None:
    """Much input at once arrives whole, although the serial line could not carry it."""
    lines = [f"{number:0100d}" for number in range(2000)]
    # Keys that come while the shell hands the terminal over could be lost: they are not pasted.
    person.sees("stty -echo; echo rea'dy'; cat > /tmp/pasted\r", "ready\r\n")
    for start in range(0, 2000, 20):
        person.terminal.type("".join(f"{line}\r" for line in lines[start : start + 20]))
    person.sees(CTRL_D, PROMPT)
    person.run("stty echo")
    assert person.run("wc -l < /tmp/pasted") == "2000\r\n"


def test_a_reboot_keeps_files(person: Person) -> None:
    """`reboot` boots the machine again, also from a shell in the shell, and files are kept."""
    person.run("echo kept > /root/kept")
    person.sees("bash\r", PROMPT)
    after = len(person.terminal.shown)
    person.terminal.type("reboot\r")
    person.terminal.wait(rf"lab: it was back after [\d.]+ s\r\n[^\0]*{PROMPT}", after, BOOT)
    assert person.run("cat /root/kept") == "kept\r\n"


def test_ctrl_d_ends_the_shell(person: Person) -> None:
    """Ctrl-D ends it with the code of the last command; the terminal is as it was before."""
    person.run("true")
    assert termios.tcgetattr(person.terminal.program_end) != person.terminal.before
    person.sees("(exit 7)\r", PROMPT)
    person.terminal.type(CTRL_D)
    assert person.terminal.end() == 7
    assert termios.tcgetattr(person.terminal.program_end) == person.terminal.before


SCRIPT = """\
cd /etc
export LAB_TEST=lasts
echo $PWD $LAB_TEST
on ns-leaf-0 cat /proc/sys/kernel/hostname
echo oops >&2
underlay ns-leaf-1 on
reboot
uptime --pretty
grep -c '"underlay": ."ns-leaf-1"' /var/lib/lab/fabric.json
exit 5
"""


def test_one_shell_runs_a_script() -> None:
    """Commands on standard input are run by one shell, and after a reboot by another."""
    result = subprocess.run(
        [SHELL], input=SCRIPT, capture_output=True, check=False, text=True, timeout=2 * BOOT
    )
    if "no lab here" in result.stderr:
        unavailable(result.stderr)
    where, node, up, count = result.stdout.splitlines()
    assert (where, node, count) == ("/etc lasts", "ns-leaf-0", "1")
    assert up.startswith("up ")
    assert "oops\n" in result.stderr
    assert "lab: the machine reboots\n" in result.stderr
    assert result.returncode == 5
