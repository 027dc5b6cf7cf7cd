"""The history: the record and the files of each apply, so that a person can go back to it.

/var/lib/evpn-host/generations/<number>/record.json    its record
/var/lib/evpn-host/generations/<number>/etc/…          its files; none if the apply failed
"""

import contextlib
import os
from pathlib import Path, PurePath

import msgspec

from generator.errors import Refused
from generator.state import files, record, stored, tree
from generator.state.record import GENERATIONS, Record


def next_number(root: Path, previous: Record | None) -> int:
    """Return the number of the next entry: higher than any before."""
    return max([0, previous.number if previous else 0, *_numbers(root)]) + 1


def _numbers(root: Path) -> list[int]:
    """Return the numbers of the entries, the newest first."""
    return sorted((int(n) for n in tree.names(root, GENERATIONS) if n.isdigit()), reverse=True)


def keep(root: Path, entry: Record, texts: dict[str, str], limit: int) -> None:
    """Keep an entry with its files, and remove the oldest ones above a limit.

    The entry whose files are on the host is never removed. Failed applies are counted separately,
    so a payload that fails again and again does not push out the entries to go back to.
    """
    name = str(entry.number)
    partial = f"{GENERATIONS}/.{name}"
    files.remove_tree(root, GENERATIONS / name)  # from earlier applies whose record was lost
    files.remove_tree(root, partial)
    for path, text in texts.items():
        files.write_plain(root, f"{partial}/{path}", files.encoded(text), 0o600)
    files.write_plain(root, f"{partial}/record.json", msgspec.json.encode(entry), 0o600)
    os.sync()  # before the rename, and once for thousands of files
    files.rename(root, partial, name)
    current = record.read(root)
    needed = {current.number, current.origin} if current else set()
    numbers = _numbers(root)
    good = [n for n in numbers if tree.is_folder(root, GENERATIONS / str(n) / "etc")]
    failed = [n for n in numbers if n not in good]
    for number in {*good[limit:], *failed[limit:]} - needed:
        files.remove_tree(root, GENERATIONS / str(number))


def entries(root: Path) -> list[Record]:
    """Return the entries of the history, the newest first; one that can't be read is left out."""
    listed = []
    for number in _numbers(root):
        with contextlib.suppress(OSError, msgspec.DecodeError, Refused):
            data = tree.read(root, GENERATIONS / str(number) / "record.json", stored.LIMIT)
            listed.append(record.decode(data))
    return listed


def texts(root: Path, entry: Record) -> dict[str, str]:
    """Return the files of an entry. Raises `OSError`."""
    folder = GENERATIONS / str(entry.number)
    return {
        str(PurePath(path).relative_to(folder)): files.read(root, path)
        for path in tree.walk(root, folder / "etc")
    }
