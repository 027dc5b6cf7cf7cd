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

Written by the tests, not by hand. A run of

```text
EVPN_HOST_RELIABILITY=1 tests/run --all --system trixie-netplan tests/lab/test_faults.py \\
    tests/lab/test_power_cuts.py
```

writes the rows of that system. `tests/run --all` does the same without writing, on
trixie-netplan; on other systems, and in the gate, it tries a fixed sample.

## What is done
A host of the lab (`lab/README.md`) runs with three V-Nets and two sessions. First a command runs
under `strace`. Each call that changes something is a **point**: a file written, made, renamed,
synced, given its mode or removed, a folder made or removed, a command started, a netlink request
that changes the kernel. Nobody keeps a list of points: a new file operation in the code is a new
point in the next run. Then the command runs again and again, and at one point a time this happens:

| kind | |
| --- | --- |
| killed | SIGKILL before the operation |
| EIO, ENOSPC, EROFS | the operation fails |
| SIGTERM | somebody ends the command at that moment |
| can't start | the system starts no process for a native tool (EAGAIN) |
| fails | the native tool ends with exit code 1 |
| hangs | the native tool does not end; then comes SIGTERM |
| killed while it runs | SIGKILL while the native tool runs, which goes on |
| power cut | the machine is off from one instant to the next, at a random moment |

In an `apply` that adds a V-Net, and in the hook's moves, each file operation meets SIGKILL and one
of the others in rotation, and each native tool meets each of its kinds. In the other commands each
point meets one kind in rotation.
Some operations are many and equal. Of each of these classes some are tried: every 8th operation in
the temporary stage and in the kept generations, every second one on networkd's files below `/run`,
every 10th setting that `uninstall` gives back. `uninstall` takes long to undo, so of its
operations on drop-ins every fourth is tried, and of those on kept generations every 60th.

## What is checked
1. Each file below `/etc`, and each kept copy, is as before or as after, whole, with its mode and
   owner. The record and the kept payload can be read.
2. The exit code is true. 0: files, devices and FRR are as after. 1: nothing has changed. 3: files,
   devices and FRR are as before. 4: the message says what to do. After SIGKILL or a power cut each
   file is as before or as after.
3. Record, `status` and journal say the same. No native tool still runs, and the lock is free.
4. **The next run ends right**: the same command again, a rollback to the same entry, or an `apply`
   after an interrupted `uninstall`, exits 0. Files, devices and FRR are as after. `status` finds no
   difference. Both sessions are Established, and none was reset. No temporary file is left.

A point is the n-th call of its kind. If three runs do not come to it, because they had more or less
to do before, it counts as not reached.

Exit code 4 is expected of `uninstall` alone, which has nothing to go back to. The hook has no way
back either: the address is somewhere at every moment, and the next look moves it to where it
belongs.

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
