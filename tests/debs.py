"""Builds once what several tests use: this checkout's packages, and programs of others."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from generator import __version__
from lab import build
from lab.result import LabUnavailable
from tests.conftest import REPO

SOURCES = ("generator", "templates", "packaging", "docs", "examples")
SINGLE = ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")
TOOLS = "debhelper dh-python lintian python3-click"
NEXT = f"{__version__}+next"
_BROWSER = "chromium-headless-shell"  # Debian's package, and its program

# Makes an apt repository of all packages in /opt/debs: those of the suite's image and those that a
# test puts there. Takes no arguments. From then on apt gets packages from nowhere else.
REPOSITORY = """
set -eu
cd /opt/debs
for deb in *.deb; do
    dpkg-deb --field "$deb"
    echo "Filename: ./$deb"
    echo "Size: $(stat -c %s "$deb")"
    echo "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)"
    echo
done > Packages
rm -f /etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:/opt/debs ./" > /etc/apt/sources.list
apt-get update --quiet=2
"""
# Removes the lab's own installation of the product, so that only the package's is there.
FORGET = "rm -rf /usr/local/bin/evpn-host /opt/evpn-host"


def debs() -> Path:
    """Return the folder with evpn-host, its next version, python3-msgspec, and evpn-host.pyz."""
    return build.built("debs", [_digest(*SOURCES, *SINGLE), NEXT], _build)


def _digest(*names: str) -> str:
    digest = hashlib.sha256()
    for name in names:
        top = REPO / name
        for file in sorted([top] if top.is_file() else top.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(REPO)).encode() + file.read_bytes())
    return digest.hexdigest()


def _msgspec(folder: Path) -> None:
    _run(REPO / "packaging/build-deb", "--msgspec", folder)
    for deb in folder.glob("evpn-host_*"):
        deb.unlink()


def program(name: str, package: str) -> str:
    """Return a program's path: this machine's, or unpacked from a package that is not installed."""
    if path := shutil.which(name):
        return path
    copy = build.cache() / name
    if not copy.exists():
        build.cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=build.cache()) as folder:
            try:
                build.apt("download", package, folder=Path(folder))
            except LabUnavailable as reason:
                raise LabUnavailable(f"no {name} here: {reason}") from None
            _extract(Path(folder), Path(folder))
            Path(folder, "usr/bin", name).rename(copy)
    return str(copy)


def browser() -> tuple[str, dict[str, str]]:
    """Return the path of a headless Chromium and the environment that it needs.

    It and the libraries that this machine lacks are unpacked beside the lab's builds, and nothing
    is installed.
    """
    folder = build.built("browser", [_BROWSER], _unpack_browser)
    libraries = folder / "usr/lib" / f"{platform.machine()}-linux-gnu"
    places = (libraries, libraries / "nss", libraries / "pulseaudio")
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, places))}
    return str(folder / "usr/lib/chromium" / _BROWSER), environment


def _unpack_browser(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as archives:
        (Path(archives) / "partial").mkdir()
        only = ("--yes", "--no-install-recommends", "--download-only")
        build.apt(f"--option=Dir::Cache::archives={archives}", "install", *only, _BROWSER)
        _extract(Path(archives), folder)


def _extract(archives: Path, folder: Path) -> None:
    for package in archives.glob("*.deb"):
        build.run(["dpkg-deb", "--extract", str(package), str(folder)])


def _build(folder: Path) -> None:
    missing = [tool for tool in ("dh", "dh_python3", "lintian") if not shutil.which(tool)]
    if missing or not Path("/usr/lib/python3/dist-packages/click").exists():
        build.apt("install", "--yes", "--no-install-recommends", *TOOLS.split())
    _run(REPO / "packaging/build-deb", folder)
    # python3-msgspec is cached apart: it seldom changes, and takes longer to build than evpn-host.
    recipe = [_digest("packaging/msgspec", "packaging/build-deb")]
    for deb in build.built("msgspec", recipe, _msgspec).glob("*.deb"):
        shutil.copy(deb, folder)
    _run(REPO / "packaging/build-zipapp", folder)
    tree = folder / "next"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(REPO / name, tree / name, symlinks=True, ignore=ignore)
    for name in SINGLE:
        shutil.copy(REPO / name, tree)
    version = tree / "generator/__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', f'"{NEXT}"'))
    changes = tree / "packaging/debian/changelog"
    changes.write_text(changes.read_text().replace(f"({__version__})", f"({NEXT})", 1))
    _run(tree / "packaging/build-deb", folder)
    shutil.rmtree(tree)


def _run(*argv: str | Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    if result.returncode:
        raise LabUnavailable(f"{argv[0]} failed:\n{(result.stdout + result.stderr)[-3000:]}")
