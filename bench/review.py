"""Measures `evpn-host review` of Fleets, as payloads, as rendered trees and as trees in Git.

    python bench/review.py [--hosts 250 1000] [--vnets 50] [--folder /dev/shm]

Prints a Markdown table. The exit code is 1 if a host of the largest Fleet takes more of the
processor than LIMIT times one of the smallest.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.render import fleet, run

LIMIT = 1.3
EVPN_HOST = [sys.executable, "-m", "generator"]
WHO = ["-c", "user.name=bench", "-c", "user.email=bench@example.net", "-c", "gc.auto=0"]


def git(folder: Path, *argv: str) -> None:
    subprocess.run(["git", *WHO, *argv], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def changed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a Fleet in which every V-Net, and so every host, has another MTU."""
    wider = [each | {"mtu": 1600} for each in document["vnets"]]
    return document | {"vnets": wider}


def sources(folder: Path, size: int, vnets: int) -> Iterator[tuple[str, list[str]]]:
    """Yield what is compared, and OLD and NEW; the trees are in a repository."""
    base = fleet(size, vnets)
    documents = {"same": base, "three": fleet(size, vnets, 3), "all": changed(base)}
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    git(folder, "init", "--quiet")
    for name in ("same", "three"):
        argv = [*EVPN_HOST, "render", "-p", str(folder / f"{name}.json"), "-o", str(folder / "t")]
        run(argv)
        git(folder, "add", "t")
        git(folder, "commit", "--quiet", "-m", name)
    run([*EVPN_HOST, "render", "-p", str(folder / "same.json"), "-o", str(folder / "before")])
    paths = {name: str(folder / f"{name}.json") for name in documents}
    yield "payloads, the same", [paths["same"], paths["same"]]
    yield "payloads, one V-Net more on three hosts", [paths["same"], paths["three"]]
    yield "payloads, every host changes", [paths["same"], paths["all"]]
    yield "folders, one V-Net more on three hosts", [str(folder / "before"), str(folder / "t")]
    yield "trees in Git, one V-Net more on three hosts", ["HEAD~1:t", "HEAD:t"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, nargs="+", default=[250, 1000], help="sizes of Fleets")
    parser.add_argument("--vnets", type=int, default=50, help="V-Nets of a host")
    parser.add_argument("--folder", type=Path, help="where to write [the system's temporary one]")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"| {options.vnets} V-Nets a host | hosts | wall time | of it processor | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    times: dict[str, list[float]] = {}
    for size in options.hosts:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            for label, pair in sources(Path(name), size, options.vnets):
                os.chdir(name)
                argv = [*EVPN_HOST, "review", "--fail-on-risk", *pair]
                seconds, busy, peak = run(argv)
                times.setdefault(label, []).append(busy / size)
                row = f"{seconds:.1f} s | {busy:.1f} s | {peak / 1024:.0f} MB"
                print(f"| {label} | {size:,} | {row} |", flush=True)
            os.chdir("/")
    growth = {label: each[-1] / each[0] for label, each in times.items()}
    worst = max(growth, key=lambda label: growth[label])
    print(f"\nA host of the most: {growth[worst]:.2f} times one of the fewest ({worst}), ", end="")
    print(f"limit {LIMIT:g}.")
    sys.exit(1 if growth[worst] > LIMIT else 0)


if __name__ == "__main__":
    main()
