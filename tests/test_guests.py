"""The files for guest platforms name the right bridge and MTU, and no payload can break them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from generator import payload_verbs
from generator.desired.payload import load
from generator.errors import Refused
from generator.verbs import guests
from generator.verbs.guests import Vnet
from lab.build import built, debootstrap
from lab.result import Result
from lab.root import Root
from tests.conftest import REPO
from tests.counting import instructions
from tests.strategies import LEAF1, encoded, host, vnet

Command = Callable[..., Result]

K8S01, FLEET = REPO / "examples/k8s01.json", REPO / "examples/fleet.json"
# A name that Kubernetes and Incus accept. libvirt forbids only a / and a line end.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# The schema of a NetworkAttachmentDefinition in the CRD that Multus installs.
NAD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "k8s.cni.cncf.io/v1"},
        "kind": {"const": "NetworkAttachmentDefinition"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["config"],
            "additionalProperties": False,
            "properties": {"config": {"type": "string"}},
        },
    },
}
HOSTILE = (
    "</name></network><network>",
    '" onload="&amp;&#10;',
    "]]>--><!--",
    "'%s' # ${0} $(reboot) `reboot`",
    "a: {b: [c]}, *x &y !!python/object",
    "- --- ...",
    "Ünïcödé/../../etc",
    "no",
    "0x1A",
)


def documents(text: str) -> list[Any]:
    """Return the documents of a YAML stream, read by a parser that makes plain values only."""
    return list(YAML(typ="safe").load_all(text))


def networks(text: str) -> list[ET.Element]:
    """Return the networks of an output."""
    return list(ET.fromstring(f"<all>{text}</all>"))  # noqa: S314  # our own


def hostile() -> list[Vnet]:
    """Return V-Nets with the hostile names, read from a payload."""
    ports = [{"name": LEAF1}]
    vnets = [vnet(100 + n, name=name, mtu=9000, ports=ports) for n, name in enumerate(HOSTILE)]
    planned = guests.planned(load(encoded(host(*vnets))).hosts[0])
    assert len(planned) == len(HOSTILE) + 1  # one more is Management
    return planned


def test_the_command_offers_every_format() -> None:
    """`guests` offers each format that has a function, and no other."""
    assert tuple(guests.FORMATS) == payload_verbs._PLATFORMS


def test_nad() -> None:
    """Each definition is valid by the CRD, and only plugs a pod into the bridge."""
    for definition, each in zip(documents(guests.nad(hostile())), hostile(), strict=True):
        Draft202012Validator(NAD).validate(definition)
        assert definition["metadata"] == {
            "name": each.bridge,
            "annotations": {"evpn-host/vnet": each.title},
        }
        assert NAME.fullmatch(each.bridge)
        config = json.loads(definition["spec"]["config"])
        assert (config["type"], config["name"]) == ("bridge", each.bridge)
        assert (config["bridge"], config["mtu"]) == (each.bridge, each.mtu)
        assert config["ipam"] == {}
        changing = ("isGateway", "isDefaultGateway", "ipMasq", "promiscMode", "hairpinMode", "vlan")
        assert not any(config.get(name) for name in changing)


def test_a_network_of_libvirt_uses_the_bridge() -> None:
    """Each network uses the bridge; a text of the payload is in one attribute only."""
    for network, each in zip(networks(guests.libvirt(hostile())), hostile(), strict=True):
        attributes = {"vni": str(each.vni), "name": each.name, "mtu": str(each.mtu)}
        shape = {child.tag: (child.text or "").strip() or child.attrib for child in network}
        assert list(shape) == ["name", "uuid", "metadata", "forward", "bridge"]
        assert shape["name"] == each.bridge
        assert shape["forward"] == {"mode": "bridge"}
        assert shape["bridge"] == {"name": each.bridge}
        [[vnet_]] = network.iter("metadata")
        assert (vnet_.tag, vnet_.attrib) == ("{urn:evpn-host}vnet", attributes)


def test_a_profile_of_incus_has_one_nic() -> None:
    """Each profile of the one document has one NIC, and only strings as values, as Incus needs."""
    [document] = documents(guests.incus(hostile()))
    for profile, each in zip(document["profiles"], hostile(), strict=True):
        assert profile == {
            "name": each.bridge,
            "description": each.title,
            "config": {},
            "devices": {
                each.bridge: {
                    "type": "nic",
                    "nictype": "bridged",
                    "parent": each.bridge,
                    "mtu": str(each.mtu),
                }
            },
        }


@pytest.mark.parametrize("form", guests.FORMATS)
def test_work_grows_with_the_number_of_vnets(form: str) -> None:
    """Eight times the V-Nets are about eight times the work, not sixty-four; none is left out."""

    def work(count: int) -> int:
        vnets = [Vnet(vni, f"nbr-{vni}", 1500, f"name {vni}") for vni in range(1, count + 1)]
        text = guests.FORMATS[form][0](vnets)
        assert set(re.findall(r"nbr-\d+", text)) == {vnet.bridge for vnet in vnets}
        return instructions(lambda: guests.FORMATS[form][0](vnets))

    few, many = work(500), work(4000)
    assert many < 10 * few, (few, many)


def test_reads_the_vnets_of_a_payload(evpn_host: Command) -> None:
    """With -p the command needs no host. It leaves out L3VNIs. -H chooses from a Fleet."""
    result = evpn_host("guests", "--format", "nad", "-p", K8S01)
    names = [each["metadata"]["name"] for each in documents(result.out)]
    assert (result.code, names) == (0, ["nbr-14", "nbr-26", "nbr-31"])
    fleet = ["guests", "--format", "libvirt", "-p", FLEET]
    assert evpn_host(*fleet).code == 1
    assert evpn_host(*fleet, "-H", "mgmt-srv-01").code == 0
    assert evpn_host("guests", "--format", "nad", "-H", "mgmt-srv-01").code == 2


def test_reads_the_vnets_of_the_record(evpn_host: Command, tmp_path: Path) -> None:
    """Their names come from the last good payload; without it the VNI stands for the name."""
    argv = ["guests", "--format", "incus", "--root", tmp_path]
    nothing = evpn_host(*argv)
    assert (nothing.code, nothing.out) == (1, "")
    assert "nothing was applied yet" in nothing.err
    (tmp_path / "etc/netplan").mkdir(parents=True)
    (tmp_path / "etc/netplan/01.yaml").touch()
    assert evpn_host("apply", "-p", K8S01, "--root", tmp_path).code == 0
    result = evpn_host(*argv)
    assert result.out == evpn_host("guests", "--format", "incus", "-p", K8S01).out
    (tmp_path / "var/lib/evpn-host/payload.json").unlink()
    without = evpn_host(*argv)
    assert without.code == 0
    assert "VNI 26" in [each["description"] for each in documents(without.out)[0]["profiles"]]


@pytest.mark.parametrize("choice", ["26", "nbr-26", "coke-North-South-in-band"])
def test_chooses_one_vnet(evpn_host: Command, choice: str) -> None:
    """VNET is a VNI, a bridge, or a name."""
    result = evpn_host("guests", "--format", "libvirt", "-p", K8S01, choice)
    [network] = networks(result.out)
    assert network.findtext("name") == "nbr-26"


def test_refuses_an_unknown_vnet(evpn_host: Command) -> None:
    """The message lists the V-Nets of the host; an L3VNI is not one of them."""
    for choice in ("1033", "l3br-1033", "\x1b[2J", "coke"):
        result = evpn_host("guests", "--format", "libvirt", "-p", K8S01, choice)
        assert (result.code, result.out) == (1, "")
        assert "is no V-Net of this host" in result.err
        assert "V-Net coke-2 (VNI 31)" in result.err
        assert "\x1b" not in result.err


def test_refuses_a_name_that_is_ambiguous_without_special_characters() -> None:
    """Names lose characters that could be misread, and two names can then be the same."""
    vnets = [Vnet(1, "nbr-1", 1500, "a_b"), Vnet(2, "nbr-2", 1500, "a_b")]
    with pytest.raises(Refused, match="VNET: a&b is the name of several"):
        guests.choose(vnets, "a&b")


def test_writes_a_file_for_each_vnet(evpn_host: Command, tmp_path: Path) -> None:
    """With -o the name of each file is that of the bridge."""
    result = evpn_host("guests", "--format", "libvirt", "-p", K8S01, "-o", tmp_path / "networks")
    files = sorted((tmp_path / "networks").iterdir())
    assert result.out.splitlines() == [str(file) for file in files]
    assert [file.name for file in files] == ["nbr-14.xml", "nbr-26.xml", "nbr-31.xml"]
    assert "".join(file.read_text() for file in files) == guests.libvirt(
        guests.planned(load(K8S01.read_bytes()).hosts[0])
    )


# --- Incus itself ---

# Runs its daemon, loads a file into it twice, and prints its profiles.
INCUS = """
set -eu
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/usr/libexec/incus/incusd --group root --logfile /incus.log >/dev/null 2>&1 &
trap 'kill $!; wait' EXIT
incus admin waitready --timeout 60 || { cat /incus.log >&2; exit 1; }
for time in first second; do incus admin init --preseed < "$1"; done
incus query "/1.0/profiles?recursion=1"
"""


def test_incus_takes_it(root_user: None, tmp_path: Path) -> None:
    """Debian 13's daemon takes the profiles twice, and then has each of them as we wrote it."""
    del root_user
    packages = ["incus-base", "incus-client"]
    file = tmp_path / "preseed.yaml"
    file.write_text(guests.incus(hostile()))
    extract = ["--variant=extract", f"--include={','.join(packages)}"]
    tree = built("incus", packages, lambda folder: debootstrap("trixie", folder, *extract))
    with Root("trixie", over=[tree]) as root:
        answer = root.run(["sh", "-c", INCUS, "incus", file], timeout=180)
    profiles = {each["name"]: each for each in answer.json}
    [document] = documents(file.read_text())
    for profile in document["profiles"]:
        actual = profiles[profile["name"]]
        assert {key: actual[key] for key in profile} == profile


# --- libvirt's own tools ---


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def root(request: pytest.FixtureRequest, root_user: None) -> Iterator[Root]:
    """Make a distribution's root tree, with libvirt's client and its test driver."""
    del root_user
    with Root(request.param) as tree:
        yield tree


def test_libvirt_takes_it(root: Root, tmp_path: Path) -> None:
    """Its schema accepts a network; virsh defines it twice, starts it, and shows what we wrote."""
    for each in hostile():
        file = tmp_path / f"{each.bridge}.xml"
        file.write_text(guests.libvirt([each]))
        root.run(["virt-xml-validate", file, "network"])
    file = tmp_path / "nbr-101.xml"
    define = f"net-define {file}; net-define {file}; net-start nbr-101; net-dumpxml nbr-101"
    result = root.run(["virsh", "--connect", "test:///default", define])
    dumped = ET.fromstring(result.out[result.out.index("<network") :])  # noqa: S314  # libvirt's
    assert dumped.find("bridge").attrib == {"name": "nbr-101"}  # type: ignore[union-attr]
    assert dumped.find("forward").attrib == {"mode": "bridge"}  # type: ignore[union-attr]
    assert dumped.find("metadata/{urn:evpn-host}vnet").attrib["mtu"] == "9000"  # type: ignore[union-attr]


def test_libvirt_takes_no_mtu(root: Root, tmp_path: Path) -> None:
    """Therefore only the metadata has the MTU. When this test fails, libvirt can take it."""
    [each] = guests.choose(hostile(), "100")
    file = tmp_path / "mtu.xml"
    text = guests.libvirt([each])
    file.write_text(text.replace("</network>", '<mtu size="1500"/></network>'))
    result = root.run(["virsh", "--connect", "test:///default", f"net-define {file}"], check=False)
    assert result.code == 1
    assert "mtu size only allowed in open, route, nat, and isolated mode" in result.err
