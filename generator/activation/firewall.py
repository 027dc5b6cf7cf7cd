"""Firewalls that stand in guests' way."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.errors import ActivationFailed

_LOADED = (Path("/sys/module/nf_tables"), Path("/proc/net/ip_tables_names"))


def warnings(log: Log) -> Iterator[str]:
    """Yield which firewall drops what guests send beyond this host, for its owner to decide.

    The tools run only if the kernel has a firewall already: they would load it.
    """
    if not any(map(Path.exists, _LOADED)):
        return
    for tool in ("iptables", "ip6tables"):
        reason = "whether what is forwarded is dropped"
        with contextlib.suppress(ActivationFailed):
            rules = commands.run(Step((tool, "-S", "FORWARD"), reason, timeout=5), log)
            if "-P FORWARD DROP" in rules and "nbr-" not in rules:
                yield (
                    f"{tool} drops what is forwarded, guests' traffic too; to let it through:"
                    f" {tool} -I FORWARD -i nbr-+ -o nbr-+ -j ACCEPT,"
                    f" {tool} -I FORWARD -i Vrf_+ -j ACCEPT"
                )
