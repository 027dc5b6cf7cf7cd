"""Moves the DNS settings of the NIC's link to where the management address is.

systemd-resolved reaches the servers of a link only through that link. While the address is on the
bridge, the bridge has the settings of the NIC's link, and systemd-resolved must not use the NIC's
link: its servers can't be reached there, and each name that does not exist would have to wait for
them. So two settings of the NIC's link are hidden: its domains, and whether it is the default. Its
servers stay, and the operator's changes of them go to the bridge too.

It is level-triggered, as the hook is. A failure does not affect the address.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired.model import Management
from generator.errors import EvpnHostError, text_of
from generator.observed import names as observing
from generator.observed.management import Observation
from generator.observed.names import Link
from generator.state.placement import HiddenNames, Names, Placement

PAUSE = 30.0  # seconds until the next try after a failure: the hook has other work too
TIMEOUT = 5.0  # seconds that a command may take; the service's watchdog has 60
_OFF = "no"

Command = tuple[str, ...]
"""Arguments of resolvectl(1): a verb, a link, values."""


def shown(present: Names, hidden: HiddenNames | None) -> Names:
    """Return the operator's settings of a link: the present ones, and the hidden ones.

    Settings that somebody or networkd has set again are no longer hidden, and count as they are.
    """
    if hidden is None or present.default_route != _OFF:
        return present
    domains = present.domains or hidden.names.domains
    default = hidden.names.default_route
    return msgspec.structs.replace(present, domains=domains, default_route=default)


def changes(present: Names, wanted: Names, link: str) -> Iterator[Command]:
    """Yield commands that give a link the wanted settings, except multicast, which guests hear."""
    if present.default_route and not wanted.default_route:  # resolvectl can't unset it alone
        yield "revert", link
        present = Names()
    for verb, before, after in (
        ("dns", present.servers, wanted.servers),
        ("domain", present.domains, wanted.domains),
        ("default-route", present.default_route, wanted.default_route),
        ("dnsovertls", present.over_tls, wanted.over_tls),
        ("dnssec", present.dnssec, wanted.dnssec),
        ("nta", present.anchors, wanted.anchors),
    ):
        words = (after,) if isinstance(after, str) else after
        if before != after:
            yield verb, link, *(words or ("",))


def multicast(wanted: Names, link: str) -> Iterator[Command]:
    """Yield commands for name resolution by multicast on a link."""
    for verb, word in (("llmnr", wanted.llmnr), ("mdns", wanted.mdns)):
        if word:
            yield verb, link, word


def hiding(names: Names, link: str) -> Iterator[Command]:
    """Yield commands after which systemd-resolved does not use a link.

    The order matters: if only the first one was run, `shown` still returns the right settings.
    """
    if names.default_route != _OFF:
        yield "default-route", link, _OFF
    if names.domains:
        yield "domain", link, ""


def showing(names: Names, link: str) -> Iterator[Command]:
    """Yield commands that undo `hiding`, for a link that networkd does not manage.

    Without a setting, a link is the default unless it has routing-only domains
    (dns_scope_is_default_route() in resolved-dns-scope.c).
    """
    if names.domains:
        yield "domain", link, *names.domains
    automatic = not any(domain.startswith("~") for domain in names.domains)
    yield "default-route", link, names.default_route or ("yes" if automatic else _OFF)


class LinkNames:
    """The part of the hook that moves DNS settings."""

    def __init__(self, root: Path, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._log = log
        self._clock = clock
        self._again = 0.0
        self._tried = (Names(), Names())
        self._tried_at = -PAUSE

    def settle(
        self,
        placed: Placement,
        management: Management,
        observed: Observation,
        save: Callable[[], None],
    ) -> bool:
        """Bring the DNS settings to where the address is; return whether to check again soon.

        `save` stores the settings of the NIC's link before they are hidden.
        """
        nic = observed.devices.get(management.ifname)
        if self._clock() < self._again or nic is None or not observing.resolved_runs(self._root):
            return False
        problem, undecided = "", True
        try:
            if link := observing.read(self._root, nic.index):
                undecided = self._settle(placed, management, observed, link, save)
        except (EvpnHostError, OSError) as error:
            problem = text_of(error) if isinstance(error, OSError) else str(error)
            self._again = self._clock() + PAUSE
        if problem != placed.names_problem:
            if problem:
                print(f"DNS servers: {problem}", file=sys.stderr, flush=True)
            placed.names_problem = problem
            save()
        return undecided and not problem

    def _settle(
        self,
        placed: Placement,
        management: Management,
        observed: Observation,
        nic: Link,
        save: Callable[[], None],
    ) -> bool:
        """Bring the settings to where the address is; return whether networkd is not ready yet."""
        device = observed.devices.get(placed.device if placed.place == "bridge" else "")
        names, known = shown(nic.names, placed.hidden_names), placed.hidden_names
        if known and known.returning:
            self._show(placed, management, nic, names, save)
            return True
        if device and observing.belong(names, management, observed):
            bridge = observing.read(self._root, device.index)
            if bridge is None:
                return True
            if known is None or known.names != names:
                by_hand = known.by_hand if known else True
                placed.hidden_names = HiddenNames(names, by_hand)
                save()
            self._give(placed.device, bridge.names, names)
            self._hide(placed, management.ifname, nic, names, save)
        elif known:
            self._show(placed, management, nic, names, save)
        return False

    def _give(self, bridge: str, present: Names, wanted: Names) -> None:
        """Give the bridge the operator's settings, not again and again if they read differently."""
        missing, now = list(changes(present, wanted, bridge)), self._clock()
        if missing and (self._tried != (present, wanted) or now > self._tried_at + PAUSE):
            self._tried, self._tried_at = (present, wanted), now
            self._run(missing)

    def _hide(
        self, placed: Placement, name: str, nic: Link, names: Names, save: Callable[[], None]
    ) -> None:
        """Keep systemd-resolved from using the NIC's link."""
        if not any(hiding(nic.names, name)):
            return
        if nic.managed:
            # If the hook ends here, the next one restores all of it, and starts again.
            placed.hidden_names = HiddenNames(names, by_hand=True, returning=True)
            save()
            by_hand = self._set_by_hand(nic.index, name, names)
            placed.hidden_names = HiddenNames(names, by_hand)
            save()
        self._run(hiding(names, name))

    def _set_by_hand(self, index: int, name: str, names: Names) -> bool:
        """Whether the operator's settings differ from networkd's. They are then set again."""
        self._run([("revert", name)])
        link = observing.read(self._root, index)
        if link is None or link.names == names:
            return False
        self._run(changes(link.names, names, name))
        self._run(multicast(names, name))
        return True

    def _show(
        self,
        placed: Placement,
        management: Management,
        nic: Link,
        names: Names,
        save: Callable[[], None],
    ) -> None:
        """Restore the settings of the NIC's link, and remove those of the bridge."""
        known, name = placed.hidden_names, management.ifname
        if known is None:
            return
        if not nic.managed:
            self._run(showing(names, name))
        else:
            if not known.returning:  # after the revert, only this has the operator's settings
                known = HiddenNames(names, known.by_hand, returning=True)
                placed.hidden_names = known
                save()
            self._run([("revert", name)])
            if known.by_hand:
                self._run(changes(Names(), known.names, name))
                self._run(multicast(known.names, name))
        if (self._root / "sys/class/net" / management.bridge).exists():
            self._run([("revert", management.bridge)])
        placed.hidden_names = None
        save()

    def _run(self, arguments: Iterable[Command]) -> None:
        """Run resolvectl, which sets systemd-resolved, or networkd where that manages the link."""
        for words in arguments:
            reason = "DNS works where the management address is"
            step = Step(("resolvectl", "--", *words), reason, timeout=TIMEOUT)
            commands.run(step, self._log)
