"""A fleet of 500 hosts before and after a change, for the tests and the page of `review`."""

import copy
import json

from tests.strategies import (
    Json,
    encoded,
    fleet,
    link,
    management,
    mgmt,
    server,
    untagged,
    vnet,
    vpc,
)

MANY = 500
VPCS = [vpc(26, name="Infrastructure"), vpc(33, name="red", vni=1033)]


def name(number: int) -> str:
    return f"srv{number:04}"


def entry(number: int) -> Json:
    """Return a host with two uplinks, to leaf1 and leaf2 of its rack."""
    high, low = number // 200, number % 200 + 1
    rack = number // 32 * 2
    ports = [f"swp{number % 32 + 1}@leaf{rack + end}" for end in (1, 2)]
    links = [
        link(f"ens{4 + n}", port, local={"name": f"eth{n}@{name(number)}"})
        for n, port in enumerate(ports)
    ]
    own = server(
        name=name(number),
        asn=4200000100 + number,
        mainAddress=f"10.2.{high}.{low}",
        mgmt=mgmt(ipv4=f"10.12.{high + 1}.{low}/16"),
    )
    return {"server": own, "links": links}


def ports_of(*numbers: int) -> list[str]:
    return [each["remote"]["name"] for number in numbers for each in entry(number)["links"]]


def before(hosts: int = MANY) -> Json:
    """Return a Fleet: V-Net red-a on all hosts, red-b on twelve."""
    everyone = range(hosts)
    red_a = vnet(4101, name="red-a", prefixes=["10.50.1.254/24"])
    red_b = vnet(4102, name="red-b", prefixes=["10.50.2.254/24"])
    ports = [{"name": port} for port in ports_of(*everyone)]
    twelve = [{"name": port} for port in ports_of(*range(100, 112))]
    return fleet(
        *map(entry, everyone),
        vpcs=VPCS,
        vnets=[
            management(ports=untagged(*ports_of(*everyone))),
            red_a | {"ports": ports},
            red_b | {"ports": twelve},
        ],
    )


def after() -> Json:
    """Return it with a new V-Net on three hosts, a new gateway on twelve, and one uplink less."""
    document = copy.deepcopy(before())
    document["generation"] = 2
    segments = document["vnets"]
    segments[2]["gateways"] = [{"prefix": "10.50.2.1/24"}]
    ports = [{"name": port} for port in ports_of(7, 33, 401)]
    segments.append(vnet(4155, name="red-new", prefixes=["10.50.5.254/24"], ports=ports))
    removed = document["hosts"][42]["links"].pop()["remote"]["name"]
    for segment in segments:
        segment["ports"] = [port for port in segment["ports"] if port["name"] != removed]
    return document


def text(document: Json) -> bytes:
    return encoded(json.loads(json.dumps(document)))
