"""The DNS servers of the NIC's link move with the management address, and come back unchanged.

The files of systemd-resolved and networkd replace the two.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import msgspec
import pytest

from generator.activation import commands
from generator.activation.commands import Log, Step
from generator.desired.model import Management
from generator.errors import ActivationFailed
from generator.failover import names as failover
from generator.failover.names import LinkNames
from generator.observed import names as observing
from generator.observed.management import Device, Observation
from generator.state.placement import Names, Placement

NIC, BRIDGE = "ens4", "nbr-14"
INDEXES = {NIC: 2, BRIDGE: 3}
MANAGEMENT = Management(NIC, BRIDGE, "10.12.0.101/16", "10.12.0.1", None, None)
OBSERVED = Observation(
    {name: Device(index, up=True, ipv6=True) for name, index in INDEXES.items()},
    {NIC: dict.fromkeys(["10.12.0.101/16", "192.0.2.5/24"], "")},
    [],
)
SERVERS = ("10.12.0.5:853#dns.example", "fd12::5")
FIELDS = {
    "dns": "servers",
    "domain": "domains",
    "default-route": "default_route",
    "dnsovertls": "over_tls",
    "dnssec": "dnssec",
    "nta": "anchors",
    "llmnr": "llmnr",
    "mdns": "mdns",
}
QUIET = Names(llmnr="no", mdns="no")


class Killed(Exception):
    """The hook's process ended here."""


class Resolved:
    """What systemd-resolved and networkd keep of each link."""

    def __init__(self, root: Path, nic: Names, ways: str) -> None:
        """`ways`: who set the NIC's servers: networkd, a person, or a person after networkd."""
        self.root, self.managed = root, "networkd" in ways
        configured = {"networkd": nic, "networkd, by hand": OWN["servers alone"]}
        self.configured = {NIC: configured.get(ways, Names()), BRIDGE: QUIET}
        self.by_hand: dict[str, Names] = {NIC: nic} if "by hand" in ways else {}
        self.commands: list[tuple[str, ...]] = []
        self.ends_after = 10**6  # so many commands and writes
        (root / "sys/fs/cgroup/system.slice/systemd-resolved.service").mkdir(parents=True)
        for name in INDEXES:
            (root / "sys/class/net" / name).mkdir(parents=True)
        for folder in ("run/systemd/netif/links", "run/systemd/resolve/netif"):
            (root / folder).mkdir(parents=True)
        self.write()

    def names(self, link: str) -> Names:
        return self.by_hand.get(link, self.configured[link])

    def restart(self) -> None:
        """networkd forgets what was set by hand."""
        self.by_hand = {} if self.managed else self.by_hand
        self.write()

    def write(self) -> None:
        for link, index in INDEXES.items():
            names = self.names(link)
            words = {
                field: " ".join(value) if isinstance(value, tuple) else value
                for field, value in msgspec.structs.asdict(names).items()
            }
            if self.managed:
                routing = [d[1:] for d in names.domains if d.startswith("~")]
                search = [d for d in names.domains if not d.startswith("~")]
                text = f"ADMIN_STATE=configured\nDNS={words['servers']}\n"
                text += f"DOMAINS={' '.join(search)}\nROUTE_DOMAINS={' '.join(routing)}\n"
                text += f"DNS_DEFAULT_ROUTE={words['default_route']}\n"
                text += f"DNS_OVER_TLS={words['over_tls']}\nDNSSEC_NTA={words['anchors']}\n"
                folder = "run/systemd/netif/links"
            else:
                text = f"SERVERS={words['servers']}\nDOMAINS={words['domains']}\n"
                text += f"DEFAULT_ROUTE={words['default_route']}\n"
                text += f"DNSOVERTLS={words['over_tls']}\nNTAS={words['anchors']}\n"
                folder = "run/systemd/resolve/netif"
            text += f"DNSSEC={words['dnssec']}\nLLMNR={words['llmnr']}\nMDNS={words['mdns']}\n"
            (self.root / folder / str(index)).write_text(text)

    def count(self) -> None:
        self.ends_after -= 1
        if self.ends_after < 0:
            raise Killed

    def run(self, step: Step, _: Log) -> str:
        self.count()
        assert step.argv[:2] == ("resolvectl", "--")
        verb, link, *words = step.argv[2:]
        self.commands.append((verb, link, *words))
        if verb == "revert":
            self.by_hand.pop(link, None)
        else:
            value: object = tuple(filter(None, words))
            if isinstance(getattr(Names(), FIELDS[verb]), str):
                [value] = words
                assert value or verb != "default-route"  # resolvectl takes no empty one
            self.by_hand[link] = msgspec.structs.replace(self.names(link), **{FIELDS[verb]: value})
        self.write()
        return ""


class Hook:
    """The hook's file, and a process of it that may be killed."""

    def __init__(self, root: Path, resolved: Resolved) -> None:
        self.root, self.resolved = root, resolved
        self.stored = msgspec.json.encode(Placement())
        self.now = 0.0

    def looks(self, place: str) -> Placement:
        """Start anew and look three times, with the address in a place."""
        names = LinkNames(self.root, lambda _: None, lambda: self.now)
        placed = msgspec.json.decode(self.stored, type=Placement)
        placed.place, placed.device = ("nic", NIC) if place == "nic" else ("bridge", BRIDGE)

        def save() -> None:
            self.resolved.count()
            self.stored = msgspec.json.encode(placed)

        for _ in range(3):
            names.settle(placed, MANAGEMENT, OBSERVED, save)
        return placed


ALL = Names(
    servers=SERVERS,
    domains=("a.example", "~corp.example"),
    default_route="yes",
    over_tls="opportunistic",
    dnssec="allow-downgrade",
    anchors=("lan",),
    llmnr="resolve",
    mdns="yes",
)
OWN = {
    "servers alone": Names(servers=SERVERS, llmnr="yes", mdns="no"),
    "all": ALL,
    "not the default": Names(
        servers=SERVERS, domains=("~corp.example",), default_route="no", llmnr="no", mdns="no"
    ),
}


@pytest.fixture(params=["networkd", "by hand", "networkd, by hand"])
def ways(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Names, ways: str
) -> tuple[Resolved, Hook]:
    resolved = Resolved(tmp_path, own, ways)
    monkeypatch.setattr(commands, "run", resolved.run)
    return resolved, Hook(tmp_path, resolved)


def for_guests(names: Names) -> Names:
    """Return the settings that the bridge gets: its own LLMNR and mDNS stay."""
    return msgspec.structs.replace(names, llmnr="no", mdns="no")


def plain(names: Names) -> Names:
    """Return a link's settings, with the default of systemd-resolved where it has none."""
    default = names.default_route or (
        "no" if any(d.startswith("~") for d in names.domains) else "yes"
    )
    return msgspec.structs.replace(names, default_route=default)


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_servers_go_to_the_bridge_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Names, ways: str
) -> None:
    """The bridge gets all but LLMNR and mDNS; the NIC gets no queries, and its settings back."""
    resolved, hook = make(tmp_path, monkeypatch, own, ways)
    hook.looks("nic")
    assert resolved.commands == []
    hook.looks("bridge")
    assert resolved.names(BRIDGE) == for_guests(own)
    hidden = resolved.names(NIC)
    assert (hidden.servers, hidden.domains, hidden.default_route) == (SERVERS, (), "no")
    count = len(resolved.commands)
    hook.looks("bridge")
    assert len(resolved.commands) == count  # nothing to do, nothing run
    assert (hidden.llmnr, hidden.mdns) == (own.llmnr, own.mdns)
    resolved.restart()
    own = own if ways != "networkd, by hand" else OWN["servers alone"]  # it has forgotten
    hook.looks("bridge")
    assert resolved.names(BRIDGE) == for_guests(own)
    hidden = resolved.names(NIC)
    assert (hidden.servers, hidden.domains, hidden.default_route) == (SERVERS, (), "no")
    hook.looks("nic")
    assert resolved.names(BRIDGE) == QUIET
    if resolved.managed:
        assert resolved.by_hand == {}
    assert plain(resolved.names(NIC)) == plain(own)
    count = len(resolved.commands)
    hook.looks("nic")
    assert len(resolved.commands) == count


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_the_next_hook_completes_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Names, ways: str
) -> None:
    """A hook killed after any command or write is completed by the next one, either way."""
    for number, (way, then) in itertools.product(
        range(24), (("bridge", "bridge"), ("bridge", "nic"), ("nic", "nic"), ("nic", "bridge"))
    ):
        resolved, hook = make(tmp_path / f"{number}-{way}-{then}", monkeypatch, own, ways)
        if way == "nic":
            hook.looks("bridge")
        resolved.ends_after = number
        with contextlib.suppress(Killed):
            hook.looks(way)
        resolved.ends_after = 10**6
        hook.looks(then)
        expected = for_guests(own) if then == "bridge" else QUIET
        assert plain(resolved.names(BRIDGE)) == plain(expected), (number, way, then)
        hook.looks("nic")
        assert plain(resolved.names(NIC)) == plain(own), (number, way, then)


def test_new_servers_of_the_operator_go_to_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: str
) -> None:
    """New servers of the operator go to the bridge, and new domains where they are known."""
    resolved, hook = make(tmp_path, monkeypatch, ALL, ways)
    hook.looks("bridge")
    changed = msgspec.structs.replace(ALL, servers=("10.12.0.9",))
    if ways == "networkd":
        resolved.configured[NIC] = changed
    resolved.by_hand[NIC] = msgspec.structs.replace(resolved.names(NIC), servers=("10.12.0.9",))
    resolved.write()
    hook.looks("bridge")
    assert resolved.names(BRIDGE) == for_guests(changed)
    hook.looks("nic")
    assert resolved.names(NIC) == changed


def test_a_failure_is_kept_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure is reported once, and tried again later: looks do not wait for it."""
    resolved, hook = make(tmp_path, monkeypatch, ALL, "networkd")
    tries: list[Step] = []

    def fails(step: Step, _: Log) -> str:
        tries.append(step)
        raise ActivationFailed("resolvectl did not end within 5 s")

    monkeypatch.setattr(commands, "run", fails)
    assert "did not end" in hook.looks("bridge").names_problem
    assert len(tries) == 1
    assert capsys.readouterr().err.count("did not end") == 1
    monkeypatch.setattr(commands, "run", resolved.run)
    assert not hook.looks("bridge").names_problem
    assert resolved.names(BRIDGE) == for_guests(ALL)


def test_without_systemd_resolved_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done without systemd-resolved, or before networkd has decided about the NIC."""
    resolved, hook = make(tmp_path, monkeypatch, ALL, "networkd")
    (tmp_path / "run/systemd/netif/links/2").write_text("ADMIN_STATE=pending\n")
    hook.looks("bridge")
    resolved.write()
    (tmp_path / "sys/fs/cgroup/system.slice/systemd-resolved.service").rmdir()
    hook.looks("bridge")
    assert resolved.commands == []


@pytest.mark.parametrize(
    ("server", "belongs"),
    [
        ("10.12.0.5", True),
        ("10.12.0.5:5353#dns.example", True),
        ("9.9.9.9", True),
        ("[fd12::5]:853#dns.example", True),
        ("192.0.2.1", False),  # of another address of the NIC, which stays
        ("192.0.2.1:5353", False),
        ("fe80::1%2", False),
        ("what is this", False),
    ],
)
def test_which_servers_belong_to_the_address(server: str, belongs: bool) -> None:
    """Servers on the link, or of another subnet of the NIC, do not belong to the address."""
    assert observing.belong(Names(servers=(server,)), MANAGEMENT, OBSERVED) == belongs


def test_words_of_a_link_are_never_options() -> None:
    """Each command has its words behind `--`; an empty list is an empty word."""
    steps = list(failover.changes(Names(servers=SERVERS), Names(domains=("-x",)), BRIDGE))
    assert steps == [("dns", BRIDGE, ""), ("domain", BRIDGE, "-x")]
