"""The JSON Schema and `load` agree about the form of a document."""

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from generator.desired.payload import advertisements, document
from generator.desired.payload import fleet as fleet_document
from generator.desired.payload.schema import IGNORED, schema
from tests.conftest import ACCEPTED
from tests.strategies import (
    IGNORED_FIELDS,
    LEAF1,
    Json,
    fleet,
    host,
    link,
    parsed,
    places,
    server,
    vnet,
    vpc,
)

HERE = Path(__file__).parent
OPEN = {"OtherHost", "OtherServer", "OtherLink", "OtherPort"}
VALIDATOR = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_the_schema_is_valid() -> None:
    """It is valid by the 2020-12 metaschema, and each of its references has a target."""
    whole = schema()
    Draft202012Validator.check_schema(whole)
    references = set(str(whole).split("#/$defs/")[1:])
    assert references
    for reference in references:
        assert reference.split("'")[0] in whole["$defs"]


def test_every_object_is_closed() -> None:
    """The schema refuses an unknown field everywhere but in hosts of another role."""
    types = schema()["$defs"]
    open_ = {
        name for name, type_ in types.items() if type_.get("additionalProperties") is not False
    }
    assert open_ == OPEN


@pytest.mark.parametrize("field", IGNORED_FIELDS)
def test_ignored_fields_are_named(field: str) -> None:
    """The schema has the fields that mean nothing on a host, and says that they are ignored."""
    for name, type_ in schema()["$defs"].items():
        means_something = (field, name) in {
            *(("id", "Vpc"), ("id", "VpcReference"), ("vlan", "TemplateVnet"))
        }
        if name not in OPEN and not means_something:
            assert type_["properties"][field] == {"description": IGNORED}, name


def test_each_field_says_what_it_means() -> None:
    """Every field has a sentence, and no docstring describes a field that does not exist."""
    for name, type_ in schema()["$defs"].items():
        assert "\n" not in type_["description"], name
        for field, definition in type_["properties"].items():
            meaning = definition.get("description", "")
            assert meaning == IGNORED or re.fullmatch(r"[A-Z`].*\.", meaning), (name, field)
        rooms = (document, fleet_document, advertisements)
        struct = next(getattr(room, name) for room in rooms if hasattr(room, name))
        described = re.findall(r"^    (\w+): ", struct.__doc__ or "", re.MULTILINE)
        assert set(described) <= type_["properties"].keys(), name
        assert len(described) == len(set(described)), name


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_accepted_documents_are_valid(path: Path) -> None:
    """The schema accepts each document that `load` accepts."""
    document = parsed(path)
    assert not places(document)
    VALIDATOR.validate(document)


def test_hosts_of_another_role_are_valid() -> None:
    """A Fleet's hosts that are no VTEPs may have any other fields."""
    other = {"server": {"srvRole": "hypervisor", "name": "gpu.1", "cpu": "x"}, "rack": None}
    document = fleet({"server": server(), "links": [link("ens4", LEAF1)]}, other)
    assert not places(document)
    VALIDATOR.validate(document)


def _in_vnet(**fields: Any) -> Json:
    return host(vnet(26) | fields)


FORM_ERRORS: dict[str, Json] = {
    "kind": host(kind="host"),
    "apiVersion": host(apiVersion="evpn-host/v2"),
    "generation": host(generation=-1),
    "server": {name: value for name, value in host().items() if name != "server"},
    "server.asn": host(server=server(asn=23456)),
    "server.srvRole": host(server=server(srvRole="generic")),
    "server.name": host(server=server(name="k8s 01")),
    "server.mainAddress": host(server=server(mainAddress="10.2.0")),
    "server.bgp.bfd": host(server=server(bgp={"bfd": 1})),
    "server.bgp.keepalive": host(server=server(bgp={"keepalive": 0})),
    "server.bgp.password": host(server=server(bgp={"password": "two words"})),
    "links": host(links={}),
    "links[0].underlay": host(links=[link("ens4", LEAF1, underlay=True)]),
    "links[0].mtu": host(links=[link("ens4", LEAF1, mtu=1279)]),
    "links[0].local.ifname": host(links=[link("lo", LEAF1)]),
    "links[0].remote.ipv4": host(links=[link("ens4", LEAF1, remote={"ipv4": "10.0.0.1"})]),
    "vpcs[2].id": host(vpcs=[vpc(26), vpc(33), vpc(4294966295)]),
    "vpcs[2].vni": host(vpcs=[vpc(26), vpc(33), vpc(34, vni=16777216)]),
    "vpcs[2].routeTargets.import[0]": host(
        vpcs=[vpc(26), vpc(33), vpc(34, routeTargets={"import": ["65000"]})]
    ),
    "vnets[1].vxlanID": host(vnet(70000000)),
    "vnets[1].name": _in_vnet(name=""),
    "vnets[1].vpc.id": _in_vnet(vpc={"id": "33"}),
    "vnets[1].state": _in_vnet(state="gone"),
    "vnets[1].mtu": _in_vnet(mtu=9217),
    "vnets[1].l2only": _in_vnet(l2only="yes"),
    "vnets[1].macAddress": _in_vnet(macAddress="4438.39ff.001a"),
    "vnets[1].gateways[0].prefix": _in_vnet(gateways=[{"prefix": "10.0.0.1"}]),
    "vnets[1].ports[0].untagged": _in_vnet(ports=[{"name": LEAF1, "untagged": None}]),
    "vnets[1].ipv6NeighborDiscovery.mode": _in_vnet(ipv6NeighborDiscovery={"mode": True}),
    "vnets[1].ipv6NeighborDiscovery.interval": _in_vnet(
        ipv6NeighborDiscovery={"mode": "disabled", "interval": 3}
    ),
    "vnets[1].ipv6NeighborDiscovery.rdnss.servers": _in_vnet(
        ipv6NeighborDiscovery={"mode": "disabled", "rdnss": {}}
    ),
    "vnets[1].vxlanId": _in_vnet(vxlanId=27),
    "vpc": host(vpc=[]),
    "hosts": {name: value for name, value in fleet().items() if name != "hosts"},
    "hosts[0].vnets": fleet({"server": server(), "links": [link("ens4", LEAF1)], "vnets": []}),
}


@pytest.mark.parametrize("place", FORM_ERRORS)
def test_form_errors_are_refused_by_both(place: str) -> None:
    """The schema and `load` both refuse wrong types, unknown fields and values out of range."""
    document = FORM_ERRORS[place]
    assert place in places(document)
    assert not VALIDATOR.is_valid(document)
