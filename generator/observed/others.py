"""Finds files of the operator that may be what sets a device back each time."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from generator.desired import plan
from generator.observed.devices import Difference
from generator.state import changes, tree

# How the files of netplan, networkd and ifupdown2 call what differs.
_WORDS = {
    "mtu": ("mtu", "MTUBytes"),
    "mac": ("macaddress", "hwaddress", "MACAddress"),
    "stp": ("stp", "bridge-stp", "STP"),
    "forward delay": ("forward-delay", "bridge-fd", "ForwardDelaySec"),
    "neighbour suppression": ("neigh-suppress", "bridge-arp-nd-suppress", "NeighborSuppression"),
}


def setters(root: Path, patterns: Iterable[str], differing: Iterable[Difference]) -> list[str]:
    """Return which files name a device that differs, and what differs of it.

    `patterns` are those of files in which a backend lets an operator configure devices.
    """
    named = [each for each in differing if each.what]
    texts = dict(_texts(root, patterns)) if named else {}
    found = []
    for each in named:
        for path, text in texts.items():
            if _names(each.device, text) and any(_names(w, text) for w in _words(each)):
                found.append(f"/{path} names {each.device} and its {each.what} too")
    return list(dict.fromkeys(found))


def _texts(root: Path, patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in (path for pattern in patterns for path in tree.find(root, pattern)):
        text = changes.read(root, path) or ""
        if not plan.ours(text):
            yield path, "".join(line.partition("#")[0] + "\n" for line in text.splitlines())


def _words(difference: Difference) -> tuple[str, ...]:
    return _WORDS.get(difference.what) or (difference.what.removeprefix("address "),)


def _names(word: str, text: str) -> bool:
    return bool(word) and re.search(rf"(?<![\w.:-]){re.escape(word)}(?![\w.-])", text) is not None
