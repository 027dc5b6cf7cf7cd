"""docs/reliability.md: how often a command was stopped, and how the host was then.

tests/lab/trials.py counts. With EVPN_HOST_RELIABILITY=1 a run writes the rows of its system,
and keeps those of other systems.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.lab.faults import Counts

TABLE = Path(__file__).parents[2] / "docs/reliability.md"
HEAD = ("system", "command", "points", "runs by kind of fault", "exit codes", "next run right")
INTRODUCTION = """\
# Stopped at every point

The tests write this page; do not edit it. A run of

```text
EVPN_HOST_RELIABILITY=1 tests/run --all --system trixie-netplan tests/lab/test_faults.py \\
    tests/lab/test_power_cuts.py
```

writes the rows of that system. `tests/run --all` does the same without writing, on trixie-netplan.
On other systems, and in the gate, a fixed sample is tried.

## The faults
A host in the lab (`lab/README.md`) has three V-Nets and two sessions. First a command runs under
`strace`. Each call that changes something is a **point**: it writes, creates, renames, syncs or
removes a file or sets its mode, creates or removes a folder, starts a command, or changes the
kernel by netlink. There is no list of points to maintain: a new file operation in the code is a new
point in the next run. Then the command runs again and again, each time with one fault at one point:

| kind | |
| --- | --- |
| killed | SIGKILL before the operation |
| EIO, ENOSPC, EROFS | the operation fails |
| SIGTERM | somebody ends the command at that moment |
| can't start | the system starts no process for a native tool (EAGAIN) |
| fails | the native tool ends with exit code 1 |
| hangs | the native tool does not end; then comes SIGTERM |
| killed while it runs | SIGKILL to the command while the native tool runs; the tool continues |
| power cut | the machine loses power at a random moment |

In an `apply` that adds a V-Net, and in the hook's moves, each file operation gets SIGKILL and one
of the other faults in rotation, and each native tool gets each fault that is possible for it. In
the other commands each point gets one fault in rotation.

Where many operations are alike, only a part of them is tried: every 8th operation in the temporary
stage and in the kept generations, every second one on networkd's files below `/run`, every 10th
setting that `uninstall` restores. `uninstall` takes long to undo, so every fourth of its operations
on drop-ins is tried, and every 60th on kept generations.

## The checks
1. Each file below `/etc`, and each kept copy, has its old or its new content, whole, with its mode
   and owner. The record and the kept payload can be read.
2. The exit code is true. 0: files, devices and FRR are new. 1: nothing has changed. 3: files,
   devices and FRR are the old ones. 4: the message says what to do. After SIGKILL or a power cut
   each file is the old one or the new one.
3. Record, `status` and journal agree. No native tool still runs, and the lock is free.
4. **The next run succeeds**: the same command again, a rollback to the same entry, or an `apply`
   after an interrupted `uninstall`, exits 0. Files, devices and FRR are new. `status` finds no
   difference. Both sessions are Established, and none was reset. No temporary file is left.

A point is the n-th call of its kind. If three runs do not reach it, because they had more or less
to do before, it counts as not reached.

Exit code 4 is expected only of `uninstall`, which has nothing to go back to. The hook does not go
back either: some device has the address at every moment, and the hook's next check moves it to the
right place.

## Counts
"""


def row(system: str, name: str, counts: Counts) -> tuple[str, ...]:
    """Return the cells of a command's trials on a system."""
    right = f"{counts.right} of {counts.runs}"
    if counts.missed:
        right += f"; {counts.missed} × the point was not reached"
    if counts.wrong:
        right += f"; {len(counts.wrong)} × something wrong"
    return (system, name, str(counts.points), _listed(counts.kinds), _listed(counts.codes), right)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} × {outcome}" for outcome, count in sorted(counts.items())) or "—"


def read(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the rows of the table by system and command."""
    rows = {}
    for line in text.partition("## Counts\n")[2].splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if len(cells) == len(HEAD) and cells[0] not in (HEAD[0], "---"):
            rows[cells[0], cells[1]] = cells
    return rows


def table(rows: Mapping[tuple[str, str], tuple[str, ...]]) -> str:
    """Return the text of docs/reliability.md for these rows."""
    lines = [HEAD, ("---",) * len(HEAD), *(rows[key] for key in sorted(rows))]
    return INTRODUCTION + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write(system: str, counts: Mapping[str, Counts]) -> None:
    """Update the rows of a system, if EVPN_HOST_RELIABILITY is set."""
    if os.environ.get("EVPN_HOST_RELIABILITY"):
        with Path(__file__).open() as lock:  # other processes write their rows too
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = read(TABLE.read_text()) if TABLE.exists() else {}
            rows |= {(system, name): row(system, name, each) for name, each in counts.items()}
            TABLE.write_text(table(rows))


if __name__ == "__main__":
    TABLE.write_text(table(read(TABLE.read_text()) if TABLE.exists() else {}))
