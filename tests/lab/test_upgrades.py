"""An upgrade of FRR that brings other conffiles asks nothing, and keeps ours."""

from __future__ import annotations

from typing import Any

import pytest

from lab.fabric import Lab, eventually
from tests.lab.k8s01 import bring_up, established
from tests.lab.nics import nothing_differs

OURS = ("/etc/frr/frr.conf", "/etc/frr/daemons")
SYSTEMS = (("trixie", "netplan"), ("bookworm", "ifupdown"))
# The installed package once more, as dpkg-repack(1) makes it: a higher version, other conffiles.
REPACK = r"""
set -e
new=/root/$1
mkdir -p $new/DEBIAN
dpkg-query --listfiles frr | grep ^/ | while read -r path; do
    if ! [ -d "$path" ]; then echo "$path"; fi
done | tar --create --files-from - | tar --extract --directory $new
for file in frr.conf daemons; do
    original=/etc/frr/$file.distrib-evpn-host
    [ -e $original ] || original=/etc/frr/$file
    cp $original $new/etc/frr/$file
    echo "# of package $1" >> $new/etc/frr/$file
done
for part in conffiles preinst postinst prerm postrm; do
    part=/var/lib/dpkg/info/frr.$part
    if [ -e $part ]; then cp $part $new/DEBIAN/${part##*/frr.}; fi
done
fields=
for field in Architecture Maintainer Pre-Depends Depends; do
    fields="$fields$field: \${$field}\n"
done
dpkg-query --show --showformat "$fields" frr > $new/DEBIAN/control
dpkg-query --show --showformat "Package: frr\nVersion: \${Version}+$1\nDescription: FRR\n" frr \
    >> $new/DEBIAN/control
dpkg-deb -Znone --build $new $new.deb
"""


@pytest.fixture(params=SYSTEMS, ids="-".join)
def lab(request: pytest.FixtureRequest, fresh_lab: Any) -> Lab:
    """A fabric with K8S01 as a VTEP."""
    lab: Lab = fresh_lab(*request.param)
    lab.host.evpn_host("install-units")
    bring_up(lab)
    return lab


def upgrade(lab: Lab, name: str) -> None:
    """Upgrade FRR as a script does, which answers no question."""
    lab.host.run(["sh", "-c", REPACK, "repack", name], timeout=300)
    lab.host.run(["dpkg", "--install", f"/root/{name}.deb"], timeout=300)


def shipped(lab: Lab, suffix: str) -> list[str]:
    """The last line of each of the package's conffiles."""
    return [lab.machine.read(path + suffix).splitlines()[-1] for path in OURS]


@pytest.mark.claim("17.13", "FRR upgraded with other conffiles: dpkg asks nothing, and ours stay")
def test_conffiles_of_frr(lab: Lab) -> None:
    """The package's files lie beside ours; uninstall puts the newest in their places."""
    host = lab.host
    ours = [lab.machine.read(path) for path in OURS]
    upgrade(lab, "new1")
    assert [lab.machine.read(path) for path in OURS] == ours
    assert shipped(lab, ".distrib-evpn-host") == ["# of package new1"] * 2
    eventually(lambda: established(host) == {"ens4", "ens5"})
    eventually(lambda: nothing_differs(lab))
    host.evpn_host("uninstall", "--yes")
    assert shipped(lab, "") == ["# of package new1"] * 2
    assert not host.run(["sh", "-c", "ls /etc/frr/*.distrib*"], check=False).out
    upgrade(lab, "new2")
    assert shipped(lab, "") == ["# of package new2"] * 2
