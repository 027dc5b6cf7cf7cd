"""Stops the command at a point, and judges the host and the next run.

A file operation is killed, fails or is interrupted by strace. A native tool is killed, fails or
hangs through a wrapper that takes its place for the command alone, in a mount namespace.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab.channel import Process
from lab.fabric import Lab, eventually
from lab.result import LabError, Result
from tests.lab import tracing
from tests.lab.k8s01 import established, resets
from tests.lab.tracing import Point

FOLDER = "/run/faults"
TRACE = f"{FOLDER}/trace"
COMMAND = ("/opt/evpn-host/bin/python", "-m", "generator")
ENVIRONMENT = {"PYTHONPATH": "/opt/repo", "PYTHONDONTWRITEBYTECODE": "1"}
# Kinds of fault. The process is killed before the operation, the operation fails, or somebody
# wants the command to end at that moment.
KILLED, ERRORS, SIGTERM = "killed", ("EIO", "ENOSPC", "EROFS"), "SIGTERM"
# A tool can't be started, fails, or does not end (then comes SIGTERM). Or it goes on while the
# command that started it is killed.
NO_START, FAILS, HANGS, ORPHANED = "can't start", "fails", "hangs", "killed while it runs"
FIRST_OF_PATH = "/usr/local/sbin/"
OF_FILES = (KILLED, *ERRORS, SIGTERM)
OF_COMMANDS = (KILLED, NO_START, FAILS, HANGS, ORPHANED)

# Takes the place of a native tool. Its parent is the command under test. A tool with its first
# argument is counted among its own kind, because how often systemctl is asked may vary.
WRAPPER = f"""\
#!/bin/sh
name=${{0##*/}}
what="$name $1"
echo "$what" >> {FOLDER}/calls
PATH=$FAULT_PATH
if [ "$what" = "$FAULT_WHAT" ]; then
    read -r n < {FOLDER}/count
    n=$((n + 1))
    echo $n > {FOLDER}/count
    if [ $n = "$FAULT_NUMBER" ]; then
        echo "$what" > {FOLDER}/hit
        case $FAULT_KIND in
        fails) echo "$name: a tool says no" >&2; exit 1 ;;
        hangs) echo $PPID > {FOLDER}/hangs; exec sleep 7777 ;;
        kills) kill -9 $PPID ;;
        esac
    fi
fi
unset FAULT_WHAT
[ -e {FOLDER}/real/$name ] && exec {FOLDER}/real/$name "$@"
exec "$name" "$@"
"""
# Puts the wrappers in place for one command: $1 are the tools that are called by their path.
ENTER = f"""\
set -eu
for tool in $1; do
    touch {FOLDER}/real/${{tool##*/}}
    mount --bind $tool {FOLDER}/real/${{tool##*/}}
    mount --bind {FOLDER}/wrapper $tool
done
shift
export FAULT_PATH="$PATH" PATH={FOLDER}/bin:$PATH
exec "$@"
"""
# Prints the state that a person would look at after a fault.
LOOK = r"""
import fcntl, glob, hashlib, json, os, stat, subprocess
VOLATILE = ("/etc/resolv.conf", "/etc/mtab", "/etc/iproute2/rt_tables.d/ifupdown2_vrf_map.conf")
def entry(path):
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "link to " + os.readlink(path)
    what = "folder"
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            what = hashlib.sha256(file.read()).hexdigest()[:16]
    return f"{what} {status.st_mode & 0o7777:o} {status.st_uid}:{status.st_gid}"
def tree(top):
    for folder, folders, files in os.walk(top):
        for name in files + folders:
            path = os.path.join(folder, name)
            if path not in VOLATILE:
                yield path, entry(path)
def document(path):
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        return f"broken: {error}"
def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout
def links():
    for link in json.loads(run("ip", "-json", "-details", "link")):
        info = link.get("linkinfo", {})
        kind = info.get("info_kind")
        if kind in ("vxlan", "bridge", "vrf"):
            data = info.get("info_data", {})
            yield link["ifname"], [
                kind, link.get("master"), link["mtu"], data.get("id"), data.get("table"),
                "UP" in link["flags"],
            ]
def locked():
    try:
        with open("/run/evpn-host/lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return True
    return False
files = dict(tree("/etc"))
kept = dict(tree("/var/lib/evpn-host/kept"))
partial = [path for path in files if os.path.basename(path).endswith(".new")]
for path in partial:
    del files[path]
print(json.dumps({
    "files": files,
    "kept": kept,
    "partial": partial + glob.glob("/var/lib/evpn-host/.*.new")
    + glob.glob("/run/systemd/network/.*.new") + glob.glob("/run/evpn-host/evpn-host-stage-*"),
    "record": document("/var/lib/evpn-host/record.json"),
    "payload": document("/var/lib/evpn-host/payload.json"),
    "links": dict(links()),
    "frr": run("vtysh", "-c", "show running-config").partition("\n!\n")[2].splitlines(),
    "locked": locked(),
    "hanging": run("pgrep", "-f", "^sleep 7777").split(),
}))
"""
OUTCOMES = {0: ("changed", "unchanged"), 1: ("refused",), 3: ("failed",), 4: ("stranded",)}
DONE = (0, 74)  # 74: all was done, and a result could not be printed
NOTHING_CHANGED = (1, 130)
WHAT_TO_DO = ("look at:", "run uninstall again", "run it again")


@dataclass(frozen=True)
class Fault:
    """A kind of fault at a point."""

    point: Point
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.point}"


@dataclass(frozen=True)
class Verb:
    """A command whose points are tried: from one state of the host to another."""

    name: str
    argv: tuple[str, ...]
    begins: str
    ends: str
    script: str = ""
    """The next run, if it is not the same command again."""
    ends_again: str = ""
    """The state after the next run, if it is another one."""

    @property
    def next(self) -> tuple[str, ...]:
        """The command that has to end right after a fault."""
        return ("sh", "-euc", self.script) if self.script else ("evpn-host", *self.argv)


@dataclass
class Counts:
    """The results of a verb's trials."""

    points: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: int = 0  # points that three runs did not reach: they had other work to do

    @property
    def runs(self) -> int:
        """How many runs had a fault."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Run:
    """A run with a fault: how it ended, and whether the fault came at the right point."""

    result: Result
    hit: str
    """What was hit; "" if the fault did not come."""
    number: int = 0
    """The number that the call of a file had in this run, 0 if it did not come."""

    @property
    def code(self) -> int:
        """The exit code, negative for a signal."""
        return self.result.code


class Bench:
    """A host on which commands meet faults."""

    def __init__(self, lab: Lab) -> None:
        """Take a lab."""
        self.lab, self.host, self.machine = lab, lab.host, lab.machine
        self._by_path: set[str] = set()
        self.equip()

    def equip(self) -> None:
        """Bring the tools of the tests onto the host, which forgets them when it boots."""
        self.machine.write(f"{FOLDER}/wrapper", WRAPPER, 0o755)
        self.machine.write(f"{FOLDER}/enter", ENTER)
        self.machine.write(f"{FOLDER}/look.py", LOOK)
        self.host.run(["mkdir", "-p", f"{FOLDER}/bin", f"{FOLDER}/real"])

    def look(self) -> dict[str, Any]:
        """Look at the files, the devices, FRR and the record of the host."""
        facts: dict[str, Any] = self.host.run(["python3", "-I", f"{FOLDER}/look.py"]).json
        return facts

    def journal(self) -> str:
        """Return the last outcome in the journal."""
        argv = (
            "journalctl -q --no-pager -t evpn-host -n 8 -o json --output-fields=EVPN_HOST_OUTCOME"
        )
        lines = self.host.run(argv.split()).out.splitlines()
        outcomes = [json.loads(line).get("EVPN_HOST_OUTCOME") for line in lines]
        return next((str(each) for each in reversed(outcomes) if each), "")

    # --- Runs ---

    def learn_tools(self, argv: Sequence[str]) -> None:
        """Run a command, and find which native tools it starts, to put wrappers in their place."""
        calls = ",".join(("execve", *tracing.STARTS))
        strace = ["strace", "-f", "-qq", "-o", TRACE, "-e", f"trace={calls}", "-e", "signal=none"]
        self._evpn_host(strace, argv).checked(argv)
        for path in tracing.first_programs(self.machine.read(TRACE)):
            if path.startswith(FIRST_OF_PATH):  # the tool is searched for
                name = path.removeprefix(FIRST_OF_PATH)
                self.host.run(["ln", "-sf", f"{FOLDER}/wrapper", f"{FOLDER}/bin/{name}"])
            else:
                self._by_path.add(path)

    def trace(self, argv: Sequence[str]) -> list[Point] | None:
        """Run a command without a fault; return its points, the commands with their names.

        None if it started a tool that it had not started when the tools were learned.
        """
        strace = ["strace", "-y", "-o", TRACE, "-e", f"trace={tracing.TRACED}"]
        self._evpn_host(strace, argv, wrapped=True).checked(argv)
        points = tracing.points(self.machine.read(TRACE))
        calls = self._calls()
        if len(calls) != len([point for point in points if point.starts]):
            return None
        numbers = [calls[: index + 1].count(call) for index, call in enumerate(calls)]
        names = iter(zip(calls, numbers, strict=True))
        return [_named(point, *next(names)) if point.starts else point for point in points]

    def run(self, argv: Sequence[str], fault: Fault) -> Run:
        """Run a command with a fault."""
        if fault.kind in (FAILS, HANGS, ORPHANED):
            return self._run_with_tool(argv, fault)
        point = fault.point
        injection = f"error={fault.kind}" if fault.kind in ERRORS else ""
        if fault.kind == NO_START:
            injection = "error=EAGAIN"
        elif not injection:
            injection = f"signal={'SIGKILL' if fault.kind == KILLED else fault.kind}"
        inject = ["-e", f"inject={point.syscall}:{injection}:when={point.number}"]
        if fault.kind == NO_START and point.syscall == "vfork":
            inject += ["-e", "inject=fork,clone:error=EAGAIN"]  # which Python tries then
        strace = ["strace", "-y", "-o", TRACE, "-e", f"trace={tracing.TRACED}", *inject]
        result = self._evpn_host(strace, argv, wrapped=point.starts)
        trace = self.machine.read(TRACE)
        call = tracing.last(trace, point.syscall, point.number)
        if not point.starts:
            hit = call[0].subject if call else ""
            return Run(result, hit, tracing.nearest(trace, point))
        if call is None:
            return Run(result, "")
        # The tool was not started. The tools before it show whether its turn had come.
        before = self._calls()[: tracing.starts_before(trace, point.syscall, point.number)]
        reached = before.count(point.subject) == point.start - 1
        return Run(result, point.subject if reached else "")

    def _run_with_tool(self, argv: Sequence[str], fault: Fault) -> Run:
        """Run a command while one of its tools fails or hangs, or while the command is killed."""
        kind = {FAILS: "fails", HANGS: "hangs", ORPHANED: "kills"}[fault.kind]
        environment = {
            "FAULT_WHAT": fault.point.subject,
            "FAULT_NUMBER": str(fault.point.start),
            "FAULT_KIND": kind,
        }
        process = self._start([], argv, wrapped=True, environment=environment)
        if fault.kind == HANGS:
            hangs = f"{FOLDER}/hangs"

            def hanging() -> bool:
                exists = self.host.run(["test", "-s", hangs], check=False).code == 0
                return exists or not process.running

            eventually(hanging, 120)
            if process.running:
                pid = self.machine.read(hangs).strip()
                self.host.run(["kill", f"-{signal.SIGTERM.value}", pid])
        result = process.wait(200)
        return Run(result, self.machine.read(f"{FOLDER}/hit").strip())

    def _evpn_host(
        self, prefix: Sequence[str], argv: Sequence[str], *, wrapped: bool = False
    ) -> Result:
        return self._start(prefix, argv, wrapped=wrapped).wait(200)

    def _start(
        self,
        prefix: Sequence[str],
        argv: Sequence[str],
        *,
        wrapped: bool,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        self.machine.write(f"{FOLDER}/count", "0\n")
        self.machine.write(f"{FOLDER}/calls", "")
        self.machine.write(f"{FOLDER}/hangs", "")
        self.machine.write(f"{FOLDER}/hit", "")
        words = [*prefix, *COMMAND, *argv]
        if wrapped:
            enter = ["unshare", "--mount", "--propagation", "private", "sh", f"{FOLDER}/enter"]
            words = [*enter, " ".join(sorted(self._by_path)), *words]
        return self.machine.start(words, env=ENVIRONMENT | dict(environment or {}))

    def _calls(self) -> list[str]:
        """Return the native tools that were started, each with its first argument."""
        return self.machine.read(f"{FOLDER}/calls").splitlines()


def _named(point: Point, name: str, number: int) -> Point:
    """Return the point of a command with its name, and its number among those with that name."""
    return replace(point, subject=name, start=number)


# Some operations are many and equal. Of each of these classes every n-th is tried.
SAMPLED = {
    "/run/evpn-host/evpn-host-stage-": 8,
    "/var/lib/evpn-host/generations/": 8,
    "/run/systemd/network/": 2,
    "/proc/sys/": 10,
}
SAMPLED_OF_UNINSTALL = SAMPLED | {
    "/var/lib/evpn-host/generations/": 60,
    "/etc/systemd/network/": 4,
}


def faults(points: Iterable[Point], *, thorough: bool) -> list[Fault]:
    """Return the faults to try.

    `thorough`: SIGKILL at each file operation, and another kind in rotation; each kind at each
    command. Otherwise, and in the classes of many equal operations, one kind in rotation.
    """
    others = itertools.cycle(OF_FILES[1:])
    each = {True: itertools.cycle(OF_COMMANDS), False: itertools.cycle(OF_FILES)}
    result = []
    for point in points:
        kinds: Iterable[str] = [next(each[point.starts])]
        if thorough and not point.subject.startswith(tuple(SAMPLED)):
            kinds = OF_COMMANDS if point.starts else (KILLED, next(others))
        result += [Fault(point, kind) for kind in kinds]
    return result


def thinned(points: Iterable[Point], classes: Mapping[str, int]) -> list[Point]:
    """Return all points, but only a sample of the classes."""
    counts: Counter[str] = Counter()
    result = []
    for point in points:
        part = next((each for each in classes if point.subject.startswith(each)), "")
        if not part or counts[part] % classes[part] == 0:
            result.append(point)
        counts[part] += 1
    return result


def sample(all_of_them: Sequence[Fault], count: int) -> list[Fault]:
    """Return so many of the faults, evenly spread and the same in each run."""
    step = max(1, len(all_of_them) // count)
    return list(all_of_them[step // 2 :: step])[:count]


class Judge:
    """Tries faults of verbs on a bench, and compares the host with its state before and after."""

    def __init__(
        self, bench: Bench, reach: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        """Take the bench, and a function that brings the host to a state by its name."""
        self.bench = bench
        self.states: dict[str, dict[str, Any]] = {}
        self.at = ""
        self._record: Any = None  # after the previous run, if nothing happened since
        self._reach = reach
        self._say = say

    def know(self, state: str) -> None:
        """Bring the host to a state without faults, and remember how the host is then."""
        self.go(state)
        self.states[state] = self.bench.look()

    def go(self, state: str) -> None:
        """Bring the host to a state."""
        if self.at != state:
            self._reach(state)
            self.at = state
            self._record = self.bench.look()["record"]

    def trial(self, verb: Verb, fault: Fault, counts: Counts) -> None:
        """Run a command with a fault; judge the host, and then the next run."""
        text = f"{verb.name}, {fault}"
        for _ in range(3):
            try:
                wrong = self._attempt(verb, fault, counts, text)
            except (LabError, AssertionError) as error:  # the other faults are still worth trying
                self.at = "?"
                wrong = [f"the trial did not end: {error}"]
            if isinstance(wrong, list):
                break
            fault = replace(fault, point=replace(fault.point, number=wrong))
        else:
            counts.missed += 1
            self._say(f"MISSED {text}: the point was not reached")
            return
        counts.wrong += [f"{text}: {each}" for each in wrong]
        for each in wrong:
            self._say(f"WRONG {text}: {each}")

    def _attempt(self, verb: Verb, fault: Fault, counts: Counts, text: str) -> list[str] | int:
        """Return the problems, or another number to try if the fault came at another point."""
        host = self.bench.host
        self.go(verb.begins)
        sessions = (
            resets(host) if verb.ends in self.states and self.states[verb.ends]["record"] else {}
        )
        begin = self._record
        self.at = "?"
        run = self.bench.run(verb.argv, fault)
        hit = run.hit == fault.point.subject
        wrong = self._judge(verb, run, begin)
        end = verb.ends_again or verb.ends
        again = host.run(verb.next, check=False, timeout=300)
        wrong_end = self._judge_end(end, again, sessions)
        if not wrong_end:
            self.at = end
        else:
            self._mend(verb)
        self._say(f"{text}: {run.code}{'' if hit else f' not there, but at {run.hit}'}")
        if not hit and not wrong and not wrong_end:
            point = fault.point
            return point.number if point.starts else run.number or point.number + 1
        counts.kinds[fault.kind] += 1
        counts.codes[code_of(run.code)] += 1
        counts.right += not wrong_end
        if run.code == 4:
            self._say(f"STRANDED {text}: {run.result.err}")
        return [f"{each} | {run.code} {run.result.err[-600:]}" for each in wrong] + wrong_end

    def whole(self, verb: Verb) -> list[str]:
        """Return the files that are neither old nor new after a power cut."""
        return list(_not_whole(self.bench.look(), self.states[verb.begins], self.states[verb.ends]))

    def ends_right(self, verb: Verb) -> list[str]:
        """Run a command again after a power cut, and return the problems that are left."""
        again = self.bench.host.run(verb.next, check=False, timeout=300)
        wrong = self._judge_end(verb.ends, again, {})
        if wrong:
            self._mend(verb)
        else:
            self.at = verb.ends
        return wrong

    def _mend(self, verb: Verb) -> None:
        """Bring a host back to a known state after a run that ended wrong."""
        self.at = "?"
        try:
            self.go(verb.begins)
        except LabError as error:
            self._say(f"NOT MENDED: {error}")

    def _judge(self, verb: Verb, run: Run, begin: Any) -> list[str]:
        """Return the problems of the host right after the fault."""
        old, new = self.states[verb.begins], self.states[verb.ends]
        now = self.bench.look()
        wrong = list(_not_whole(now, old, new))
        if run.code in DONE:
            wrong += _other(now, new)
        elif run.code in (*NOTHING_CHANGED, 3):
            wrong += _other(now, old)
        elif run.code != -9 and (run.code, verb.name) != (4, "uninstall"):
            wrong.append(f"exit {run.code}")  # after a single fault the host can go back
        if now["locked"] and run.code != -9:
            wrong.append("the lock is held")
        if now["hanging"] and run.code != -9:
            wrong.append("a tool still runs")
        wrong += _untrue(run, now["record"], begin)
        if run.code == 3 and verb.argv[0] == "apply" and not now["record"]["detail"]:
            wrong.append("the record does not say what failed")
        if now["record"] and new["record"] and old["record"]:
            wrong += self._judge_words(run, now, old, new)
        return wrong

    def _judge_words(
        self, run: Run, now: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
    ) -> list[str]:
        """Return what record, `status` and journal say that is not true."""
        wrong = []
        record = now["record"]
        status = self.bench.host.evpn_host("status", "--json", check=False).json
        whole = now["files"] in (old["files"], new["files"])
        if not status["differences"] and not whole:
            wrong.append("status says that nothing differs, but files are of both sides")
        if run.code in (*DONE, *NOTHING_CHANGED, 3) and status["differences"]:
            wrong.append(f"status: {status['differences'][:3]}")
        if run.code in (*DONE, 3) and not record["ok"]:
            wrong.append(f"the record is not ok: {_detail(record)}")
        if run.code in OUTCOMES and (outcome := self.bench.journal()) not in OUTCOMES[run.code]:
            wrong.append(f"the journal says {outcome or 'nothing'}")
        return wrong

    def _judge_end(
        self, end: str, again: Result, sessions: dict[str, tuple[int, int]]
    ) -> list[str]:
        """Return the problems after the next run."""
        if again.code:
            return [f"next run: exit {again.code}: {again.err[-600:]}"]
        host = self.bench.host
        now = self.bench.look()
        self._record = now["record"]
        new = self.states[end]
        wrong = [f"next run: {text}" for text in _other(now, new)]
        if now["partial"]:
            wrong.append(f"next run leaves {now['partial'][:3]}")
        if new["record"]:
            status = host.evpn_host("status", "--json", check=False).json
            if status["differences"]:
                wrong.append(f"next run: status: {status['differences'][:3]}")
            try:
                eventually(lambda: established(host) == {"ens4", "ens5"})
            except AssertionError:
                wrong.append("next run: not all sessions are Established")
            if sessions and resets(host) != sessions:
                wrong.append(f"sessions were reset: {sessions} {resets(host)}")
        return wrong


def code_of(code: int) -> str:
    """Return the exit code as the table shows it."""
    return "killed" if code == -9 else str(code)


def _untrue(run: Run, record: Any, begin: Any) -> Iterator[str]:
    """Yield where the record or the message contradicts the exit code."""
    if run.code in NOTHING_CHANGED and record != begin:
        yield f"exit {run.code}, but the record changed: {_detail(record)}"
    if run.code == 4 and not any(words in run.result.err for words in WHAT_TO_DO):
        yield "exit 4 without a word on what to do"
    if run.code == 4 and record and record["ok"]:
        yield "exit 4, but the record says ok"


def _detail(record: Any) -> str:
    return record if isinstance(record, str) else str(record and record["detail"])[:200]


def _not_whole(now: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the files that are neither old nor new."""
    wrong = []
    for part in ("files", "kept"):
        for path in now[part].keys() | old[part].keys() | new[part].keys():
            entry = now[part].get(path)
            if entry not in (old[part].get(path), new[part].get(path)):
                wrong.append(
                    f"{path} is {entry}, neither {old[part].get(path)} as before "
                    f"nor {new[part].get(path)} as after"
                )
    documents = [name for name in ("record", "payload") if isinstance(now[name], str)]
    return wrong + [f"{name}.json is {now[name]}" for name in documents]


def _other(now: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return which files, devices and lines of FRR are not as expected."""
    wrong = []
    for part in ("files", "links"):
        wrong += [
            f"{name}: {now[part].get(name)}, not {expected[part].get(name)}"
            for name in sorted(now[part].keys() | expected[part].keys())
            if now[part].get(name) != expected[part].get(name)
        ]
    if now["frr"] != expected["frr"]:
        lost = [line for line in expected["frr"] if line not in now["frr"]][:3]
        more = [line for line in now["frr"] if line not in expected["frr"]][:3]
        wrong.append(f"FRR lacks {lost}, has {more}")
    return wrong[:6]
