"""The systemd units of an installation that came without them: from a wheel, or a checkout."""

import shlex
import shutil
import sys
from pathlib import Path

from generator import activate, files
from generator.activate import Log, Step

TARGET = Path("etc/systemd/system")
_SOURCE = Path(__file__).parent / "systemd"
_PACKAGED = "/usr/bin/evpn-host"  # what the units name, for distribution packages


def command() -> str:
    """The running command as `ExecStart=` takes it."""
    own = Path(sys.argv[0])
    if own.name == "evpn-host" and own.is_file():
        return _quote(str(own.resolve()))
    if found := shutil.which("evpn-host"):
        return _quote(found)
    return f"{_quote(sys.executable)} -m generator"


def _quote(path: str) -> str:
    return shlex.quote(path).replace("%", "%%").replace("$", "$$")


def texts() -> dict[str, str]:
    """Each unit's name and text, with the running command in it."""
    found = {file.name: file.read_text() for file in sorted(_SOURCE.iterdir())}
    return {name: text.replace(_PACKAGED, command()) for name, text in found.items()}


def install(root: Path, log: Log, *, reload: bool) -> list[str]:
    """Write the units that differ from those there, and have systemd read them; their paths."""
    changed = []
    for name, text in texts().items():
        target = root / TARGET / name
        if not target.is_file() or target.read_text(errors="replace") != text:
            files.write(target, text.encode(), 0o644)
            changed.append(str(TARGET / name))
    if changed and reload:
        activate.run(Step(("systemctl", "daemon-reload"), "systemd reads the units"), log)
    return changed
