"""Real programs take what `guests` prints, and put a guest into the bridge.

Each runs in Debian 13's tree, in a network of its own. The bridge is like one of a V-Net: it has
the gateway's addresses, and a MAC and an MTU of its own. The guest has the MTU and its address, and
reaches the gateway; the bridge stays as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from generator.verbs import guests
from generator.verbs.guests import Vnet
from lab import qemu
from lab.build import built, debootstrap
from lab.root import Root

VNET = Vnet(26, "nbr-26", 1400, "coke", ("10.188.0.254/24", "fd00:188::254/64"))
IPV4, IPV6 = "10.188.0.10", "fd00:188::10"
SETUP = """
set -eu
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
ip link add nbr-26 address 44:38:39:ff:00:1a type bridge
ip link set nbr-26 mtu 1400 up
ip address add 10.188.0.254/24 dev nbr-26
ip address add fd00:188::254/64 dev nbr-26 nodad
mkdir -p /guest && mount -t tmpfs tmpfs /guest
mkdir /guest/usr /guest/etc /guest/proc /guest/sys /guest/dev /guest/run /guest/tmp /guest/var
mount --bind /usr /guest/usr
for name in bin lib lib64 sbin; do ln -s "usr/$name" "/guest/$name"; done
"""
# A guest waits for duplicate address detection, and pings its gateways.
LOOK = (
    "for n in 1 2 3 4 5 6; do ip -6 address show tentative | grep -q . || break; sleep 0.5; done;"
    " ping -q -c 1 -W 5 10.188.0.254; ping -q -c 1 -W 5 fd00:188::254; ip -json address show dev "
)
# As the page says: the file is the machine's, the commented lines are the container's.
NSPAWN = f"""
mkdir -p /etc/systemd/nspawn
cp "$1" /etc/systemd/nspawn/guest.nspawn
by_hand="ip link set host0 mtu $(sed -n 's/^# MTUBytes=//p' "$1") up;
  ip address add {IPV4}/24 dev host0; ip address add {IPV6}/64 dev host0 nodad"
systemd-nspawn --quiet --machine=guest --directory=/guest --register=no --keep-unit \\
    --settings=override --as-pid2 sh -c "$by_hand; {LOOK} host0"
"""
LXC = f"""
sed 's/^# lxc/lxc/; s!ADDRESS/24!{IPV4}/24!; s!ADDRESS/64!{IPV6}/64!' "$1" > /etc/guest.conf
printf 'lxc.rootfs.path = dir:/guest\\nlxc.console.path = none\\n' >> /etc/guest.conf
lxc-execute --name guest --rcfile /etc/guest.conf -- sh -c "{LOOK} eth0"
"""
PODMAN = f"""
mkdir -p /etc/containers/networks /var/lib/containers
mount -t tmpfs tmpfs /var/lib/containers
cp "$1" /etc/containers/networks/nbr-26.json
podman run --quiet --rm --cgroups disabled --cap-add NET_RAW \\
    --network nbr-26:ip={IPV4},ip={IPV6} --rootfs /guest sh -c "{LOOK} eth0"
"""
# No guest starts: what counts is that the helper lets QEMU join, and what its tap is like.
QEMU = """
mkdir -p /etc/qemu
cp "$1" /etc/qemu/bridge.conf
netdev=$(sed -n 's/^# -netdev //p' "$1")
device=$(sed -n 's/^# -device //p' "$1" | sed 's/MAC/52:54:00:00:00:10/')
qemu-system-x86_64 -nodefaults -display none -S -monitor none \\
    -netdev "$netdev" -device "$device" >&2 &
for n in $(seq 60); do
    if ip link show master nbr-26 | grep -q tap; then break; fi
    sleep 0.5
done
ip -json link show master nbr-26
kill $!
wait $! || true
sed -i 's/nbr-26/nbr-31/' /etc/qemu/bridge.conf
if qemu-system-x86_64 -nodefaults -display none -S -monitor none -netdev "$netdev" >&2; then
    exit 1
fi
"""


class Platform(NamedTuple):
    """The packages of a platform's program, and a script that starts a guest with it."""

    tree: Callable[[], Path]
    script: str


def packages(*names: str) -> Callable[[], Path]:
    """Return a function that unpacks these packages of Debian 13, once."""
    extract = ["--variant=extract", f"--include={','.join(names)}"]
    return lambda: built(
        names[0], list(names), lambda folder: debootstrap("trixie", folder, *extract)
    )


PLATFORMS = {
    "podman": Platform(packages("podman", "netavark", "crun"), PODMAN),
    "qemu": Platform(qemu.tree, QEMU),
    "nspawn": Platform(packages("systemd-container"), NSPAWN),
    "lxc": Platform(packages("lxc"), LXC),
}


@pytest.mark.parametrize("name", PLATFORMS)
def test_its_program_takes_it(root_user: None, tmp_path: Path, name: str) -> None:
    """The guest is in the bridge with its MTU, and the bridge stays as it was."""
    del root_user
    platform = PLATFORMS[name]
    file = tmp_path / "definition"
    file.write_text(guests.FORMATS[name][0]([VNET]))
    with Root("trixie", over=[platform.tree()]) as root:
        root.run(["sh", "-c", SETUP])
        before = bridge(root)
        result = root.run(["sh", "-euc", platform.script, "sh", file], timeout=120)
        assert bridge(root) == before
    [link] = json.loads(result.out.splitlines()[-1])
    assert link["mtu"] == VNET.mtu
    if name != "qemu":
        assert {IPV4, IPV6} <= {each["local"] for each in link["addr_info"]}
        assert result.out.count(" 0% packet loss") == 2, result.out


def bridge(root: Root) -> dict[str, Any]:
    """Return the properties of the bridge that a platform could change."""
    [shown] = root.run(["ip", "-json", "address", "show", "nbr-26"]).json
    known = {key: shown[key] for key in ("mtu", "address", "flags")}
    known["flags"] = sorted({*known["flags"]} - {"NO-CARRIER", "LOWER_UP"})
    rules = [root.run([tool, "-S"]).out for tool in ("iptables", "ip6tables")]
    addresses = {each["local"] for each in shown["addr_info"] if each["scope"] == "global"}
    return known | {"addresses": addresses, "rules": rules}
