"""FRR's running configuration against its file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from generator.observed import running

# As FRR 10.3 shows it: each daemon its part, some lines in several of them.
BGPD = """\
frr version 10.3
frr defaults traditional
!
hostname K8S01
!
route-map OWN permit 10
 match as-path OWN
exit
!
vrf Vrf_33
exit-vrf
!
router bgp 65000
 bgp router-id 10.2.0.101
 neighbor LEAVES peer-group
 neighbor ens4 interface v6only peer-group LEAVES
 !
 address-family l2vpn evpn
  neighbor LEAVES activate
  vni 14
   advertise-svi-ip
  exit-vni
 exit-address-family
!
exit
!
"""
ZEBRA = """\
frr version 10.3
!
route-map OWN permit 10
exit
!
vrf Vrf_33
 vni 1033
exit-vrf
!
interface ens6
exit
!
"""
FILE = """\
! Written by evpn-host; edits are lost.
frr defaults traditional
hostname K8S01-of-another-name
!
vrf Vrf_33
 vni 1033
exit-vrf
!
route-map OWN permit 10
 match as-path OWN
exit
!
router bgp 65000
 bgp router-id 10.2.0.101
 neighbor LEAVES peer-group
 neighbor ens4 interface v6only peer-group LEAVES
 !
 address-family l2vpn evpn
  neighbor LEAVES activate
  vni 14
   advertise-svi-ip
  exit-vni
 exit-address-family
exit
!
"""
Texts = Callable[..., list[str]]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Texts:
    """Return a function that gives the differences when bgpd shows this configuration."""
    file = tmp_path / running.CONF
    file.parent.mkdir(parents=True)

    def said(bgpd: str, text: str = FILE) -> list[str]:
        file.write_text(text)
        monkeypatch.setattr(running, "_running", lambda _: [bgpd, ZEBRA])
        return running.drift(tmp_path).texts

    return said


def test_the_same_in_another_order(texts: Texts) -> None:
    assert texts(BGPD) == []


def test_a_line_is_missing(texts: Texts) -> None:
    assert texts(BGPD.replace(" match as-path OWN\n", "")) == [
        "FRR: `match as-path OWN` of route-map OWN permit 10 is missing"
    ]
    assert texts(BGPD.replace("   advertise-svi-ip\n", "")) == [
        "FRR: `advertise-svi-ip` of router bgp 65000, address-family l2vpn evpn, vni 14 is missing"
    ]


def test_a_line_is_new(texts: Texts) -> None:
    shown = BGPD.replace(" !\n", " neighbor ens4 shutdown\n !\n")
    assert texts(shown) == ["FRR: `neighbor ens4 shutdown` of router bgp 65000 is not in its file"]


def test_a_whole_part_is_named_once(texts: Texts) -> None:
    shown = BGPD[: BGPD.index("router bgp")]
    assert texts(shown) == ["FRR: `router bgp 65000` is missing, and 7 lines below it"]


def test_of_a_part_with_one_line_that_line_is_named(texts: Texts) -> None:
    shown = BGPD + "router bgp 65000 vrf Vrf_33\n bgp router-id 10.2.0.101\nexit\n"
    assert texts(shown) == [
        "FRR: `bgp router-id 10.2.0.101` of router bgp 65000 vrf Vrf_33 is not in its file"
    ]


def test_passwords_are_not_shown(texts: Texts) -> None:
    shown = BGPD.replace(" !\n", " neighbor LEAVES password horse-battery\n !\n")
    assert texts(shown) == [
        "FRR: `neighbor LEAVES password (not shown)` of router bgp 65000 is not in its file"
    ]


def test_many_differences_are_counted(texts: Texts) -> None:
    shown = BGPD + "".join(f"ip route 192.0.2.{n}/32 blackhole\n" for n in range(50))
    listed = texts(shown)
    assert len(listed) == 21
    assert listed[-1] == "FRR: 30 more lines differ"


def test_neighbors_that_the_file_does_not_have(tmp_path: Path) -> None:
    (tmp_path / running.CONF).parent.mkdir(parents=True)
    (tmp_path / running.CONF).write_text(FILE)
    shown = BGPD.replace(
        " !\n", " neighbor ens4 shutdown\n neighbor ens9 remote-as 1\n neighbor ens9 shutdown\n !\n"
    )
    drift = running.Drift([], sorted(running.lines_of([shown]) - running.lines_of([FILE])))
    assert running.foreign_neighbors(drift, tmp_path) == [("router bgp 65000", "ens9")]


def test_what_is_shut_down_in_frr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "interface ens4\n ipv6 nd ra-interval 3\nexit\ninterface ens5\n shutdown\nexit\n"
    monkeypatch.setattr(running, "_running", lambda _: [shown])
    assert running.shut_down(tmp_path) == {"ens5"}


SHUT = """\
interface ens4
 shutdown
exit
!
interface ens5
 description shutdown
exit
!
router bgp 65000
 neighbor ens6 interface v6only peer-group LEAVES
 neighbor ens6 shutdown
 neighbor ens7 description shutdown
exit
"""


def test_shut_down_nics_and_neighbors_are_found(tmp_path: Path) -> None:
    """NICs and neighbors that the file shuts down are found; FRR does not answer here."""
    assert running.shut(tmp_path, SHUT) == ({"ens4", "ens6"}, set())
