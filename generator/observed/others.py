"""Finds files of the operator that may undo our settings of a device again and again."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from generator.desired import plan
from generator.observed.devices import Difference
from generator.state import changes, tree

# The keys that netplan, networkd and ifupdown2 have for a setting.
_WORDS = {
    "mtu": ("mtu", "MTUBytes"),
    "mac": ("macaddress", "hwaddress", "MACAddress"),
    "stp": ("stp", "bridge-stp", "STP"),
    "forward delay": ("forward-delay", "bridge-fd", "ForwardDelaySec"),
    "neighbour suppression": ("neigh-suppress", "bridge-arp-nd-suppress", "NeighborSuppression"),
}


def setters(root: Path, patterns: Iterable[str], differing: Iterable[Difference]) -> list[str]:
    """Return the files that name a device that differs, and the setting that differs.

    `patterns` match the files in which an operator configures devices for a backend.
    """
    named = [each for each in differing if each.what]
    texts = dict(_texts(root, patterns)) if named else {}
    listed = []
    for each in named:
        for path, text in texts.items():
            if _names(each.device, text) and any(_names(w, text) for w in _words(each)):
                listed.append(f"/{path} names {each.device} and its {each.what} too")
    return list(dict.fromkeys(listed))


def _texts(root: Path, patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in (path for pattern in patterns for path in tree.find(root, pattern)):
        text = changes.read(root, path) or ""
        if not plan.ours(text):
            yield path, "".join(line.partition("#")[0] + "\n" for line in text.splitlines())


def _words(difference: Difference) -> tuple[str, ...]:
    return _WORDS.get(difference.what) or (difference.what.removeprefix("address "),)


def _names(word: str, text: str) -> bool:
    return bool(word) and re.search(rf"(?<![\w.:-]){re.escape(word)}(?![\w.-])", text) is not None
