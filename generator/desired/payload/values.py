"""The payload's values: numbers, addresses and names, each with its own rule.

A refusal prints what `parse` raises, or the bounds and the `rule` of a type's `Meta`.
"""

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, ClassVar, Literal, Self

from msgspec import Meta
from netaddr import INET_PTON, AddrFormatError, IPAddress, IPNetwork


class Asn(int):
    """An AS number that a session can use (RFC 6793, 7607, 7300)."""

    schema: ClassVar[dict[str, Any]] = {
        "type": "integer",
        "minimum": 1,
        "maximum": 4294967294,
        "not": {"enum": [23456, 65535]},
    }

    @classmethod
    def parse(cls, value: object) -> Self:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("is not a whole number")
        if not 1 <= value <= 4294967294:
            raise ValueError("is not in 1–4294967294")
        if value in {23456, 65535}:
            raise ValueError("is a reserved AS number (RFC 6793, RFC 7300)")
        return cls(value)


class _Text(str):
    """A leaf that is text of one form."""

    __slots__ = ()
    form: ClassVar[re.Pattern[str]]
    rule: ClassVar[str]
    schema: ClassVar[dict[str, Any]] = {"type": "string"}

    @classmethod
    def parse(cls, value: object) -> Self:
        if not isinstance(value, str):
            raise ValueError("is not a string")
        if not cls.form.fullmatch(value):
            raise ValueError(cls.rule)
        return cls(cls.canonical(value))

    @classmethod
    def canonical(cls, text: str) -> str:
        return text


class Mac(_Text):
    """A unicast MAC address, kept in lower case."""

    __slots__ = ()
    form = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
    rule = "is not a MAC address (six pairs of hex digits with colons)"
    schema = {"type": "string", "pattern": f"^{form.pattern}$"}  # noqa: RUF012

    @classmethod
    def canonical(cls, text: str) -> str:
        if int(text[:2], 16) & 1:
            raise ValueError("is a multicast MAC address")
        if not int(text.replace(":", ""), 16):
            raise ValueError("is the zero MAC address")
        return text.lower()


class RouteTarget(_Text):
    """`ASN:n` or `IPv4:n`, as FRR writes them (RFC 4360, RFC 5668)."""

    __slots__ = ()
    form = re.compile(r"[0-9.]{1,15}:[0-9]{1,10}")
    rule = "is not ASN:n or IPv4:n"
    schema = {"type": "string", "pattern": f"^{form.pattern}$"}  # noqa: RUF012

    @classmethod
    def canonical(cls, text: str) -> str:
        administrator, number = text.split(":")
        if "." in administrator:
            administrator, limit = str(_address(administrator, 4)), 65535
        else:
            asn = int(administrator)
            if not 1 <= asn <= 4294967295:
                raise ValueError("has an AS number outside 1–4294967295")
            administrator, limit = str(asn), 4294967295 if asn <= 65535 else 65535
        if int(number) > limit:
            raise ValueError(
                f"has a number above {limit}, the most that fits beside {administrator}"
            )
        return f"{administrator}:{int(number)}"


def _address(text: str, family: int) -> IPAddress:
    try:
        address = IPAddress(text, flags=INET_PTON)
    except (AddrFormatError, ValueError):
        address = None
    if address is None or address.version != family or not re.fullmatch(r"[0-9A-Fa-f:.]+", text):
        raise ValueError(f"is not an IPv{family} address")
    return address


# Prefixes from which no host can have its address (RFC 6890).
_UNUSABLE = {
    4: {
        "0.0.0.0/32": "the unspecified",
        "0.0.0.0/8": "a reserved",
        "127.0.0.0/8": "a loopback",
        "224.0.0.0/4": "a multicast",
        "240.0.0.0/4": "a reserved",
    },
    6: {
        "::/128": "the unspecified",
        "::1/128": "a loopback",
        "::ffff:0:0/96": "an IPv4-mapped",
        "fe80::/10": "a link-local",
        "ff00::/8": "a multicast",
    },
}
_UNUSABLE_RANGES = {
    family: [(IPNetwork(prefix).first, IPNetwork(prefix).last, what) for prefix, what in of.items()]
    for family, of in _UNUSABLE.items()
}


def _check_unicast(address: IPAddress) -> None:
    number = int(address)
    for first, last, what in _UNUSABLE_RANGES[address.version]:
        if first <= number <= last:
            raise ValueError(f"is {what} address, not one that a host can have")


def _text_of(address: IPAddress) -> str:
    """Return an address as the kernel's tools and FRR print it (RFC 5952).

    netaddr prints `::102:304` as `::1.2.3.4`.
    """
    return str(ip_address(int(address)) if address.version == 4 else IPv6Address(int(address)))


class Address4(IPAddress):
    """An IPv4 unicast address."""

    schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "ipv4"}

    @classmethod
    def parse(cls, value: object) -> Self:
        return cls(_text_address(value, 4))


class Address6(IPAddress):
    """An IPv6 global or unique local unicast address."""

    __slots__ = ()

    def __str__(self) -> str:
        return _text_of(self)

    schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "ipv6"}

    @classmethod
    def parse(cls, value: object) -> Self:
        return cls(_text_address(value, 6))


def _text_address(value: object, family: int) -> IPAddress:
    if not isinstance(value, str):
        raise ValueError("is not a string")
    address = _address(value, family)
    _check_unicast(address)
    return address


class Interface(IPNetwork):
    """A host address with the length of its subnet: `10.188.0.254/24`, `fd00::1/64`."""

    families: ClassVar[tuple[int, ...]] = (4, 6)

    def __str__(self) -> str:
        return f"{_text_of(self.ip)}/{self.prefixlen}"

    longest: ClassVar[dict[int, int]] = {4: 32, 6: 128}
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$"}

    @classmethod
    def parse(cls, value: object) -> Self:
        if not isinstance(value, str):
            raise ValueError("is not a string")
        text, slash, length = value.partition("/")
        family: Literal[4, 6] = 6 if ":" in text else 4
        families = " or ".join(f"IPv{f}" for f in cls.families)
        if not slash or family not in cls.families or not re.fullmatch(r"[0-9]{1,3}", length):
            raise ValueError(f"is not an {families} address with a length")
        address = _address(text, family)
        _check_unicast(address)
        bits = 32 if family == 4 else 128
        if not 1 <= int(length) <= bits:
            raise ValueError(f"has a length outside 1–{bits}")
        if int(length) > cls.longest[family]:
            raise ValueError(f"is longer than /{cls.longest[family]}")
        interface = cls((int(address), int(length)), version=family)
        if int(length) < bits - 1:
            if int(address) == interface.first:
                raise ValueError("is the network, not a host address in it")
            if family == 4 and int(address) == interface.last:
                raise ValueError("is the broadcast address of its subnet")
        return interface


class Interface4(Interface):
    """An IPv4 host address with its length."""

    families = (4,)


class Interface6(Interface):
    """An IPv6 host address with its length."""

    families = (6,)


class GatewayPrefix(Interface):
    """A gateway address with its length. Its subnet also has room for a guest."""

    longest = {4: 30, 6: 126}  # noqa: RUF012


class NicLabel:
    """A label of a NIC: `iface.eth9 = storage`."""

    __slots__ = ("nic", "value")
    schema: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": r"^\s*iface\.[^=]*[^=\s][^=]*=.*\S.*$",
    }

    def __init__(self, nic: str, value: str) -> None:
        self.nic = nic
        self.value = value

    @classmethod
    def parse(cls, value: object) -> Self:
        if not isinstance(value, str):
            raise ValueError("is not a string")
        key, _, text = (part.strip() for part in value.partition("="))
        nic = key.removeprefix("iface.").strip()
        if not key.startswith("iface.") or not nic or not text:
            raise ValueError("is not iface.<nic> = <value>")
        return cls(nic, text)


class TemplateGateway:
    """A gateway in a template: an address, or `specify` if each cluster sets its own."""

    __slots__ = ("prefix",)
    family: ClassVar[int]
    schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "string", "pattern": "^(specify|[0-9A-Fa-f:.]+/[0-9]{1,3})$"},
            {
                "type": "object",
                "properties": {"assignType": {"const": "specify"}},
                "required": ["assignType"],
            },
        ]
    }

    def __init__(self, prefix: GatewayPrefix | None) -> None:
        self.prefix = prefix

    @classmethod
    def parse(cls, value: object) -> Self:
        way = value.get("assignType") if isinstance(value, dict) else value
        if way == "specify":
            return cls(None)
        if way == "auto":
            raise ValueError(
                "is a gateway that a controller chooses (assignType: auto): write the address that "
                "it chose, or `specify` and the address in each Server Cluster"
            )
        if isinstance(value, dict):
            raise ValueError("is not an address with a length, or `specify`")
        prefix = GatewayPrefix.parse(value)
        if prefix.version != cls.family:
            raise ValueError(f"is not an IPv{cls.family} address with a length, or `specify`")
        return cls(prefix)


class TemplateGateway4(TemplateGateway):
    """An IPv4 gateway in a template."""

    __slots__ = ()
    family = 4


class TemplateGateway6(TemplateGateway):
    """An IPv6 gateway in a template."""

    __slots__ = ()
    family = 6


def _pattern(pattern: str, rule: str) -> Meta:
    # `\n` stays an escape of the pattern: a real line end would print the pattern on two lines.
    return Meta(pattern=rf"^(?:{pattern})$(?!\n)", extra={"rule": rule})


Text = Annotated[str, Meta(min_length=1, max_length=255, extra={"rule": "is not 1–255 characters"})]
HostName = Annotated[
    str,
    _pattern(
        "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
        "is not a host name (RFC 1123: 1–63 letters, digits and inner hyphens)",
    ),
]
InterfaceName = Annotated[
    str,
    _pattern(
        # netplan reads `renderer` as a setting, and FRR has the peer-group LEAVES. ifupdown2 reads
        # the text after a '.' as a VLAN's number, and fails if it is not a number.
        "(?!(lo|all|default|renderer|LEAVES)$)(?=.{1,15}$)"
        "[A-Za-z][A-Za-z0-9_-]*(\\.[0-9]{1,4}){0,2}",
        "is not a NIC's name (1–15 letters, digits, '_', '-', and '.' before a VLAN's number; "
        "not lo, all, default, renderer, LEAVES)",
    ),
]
Password = Annotated[
    str, _pattern("[!-~]{1,80}", "is not 1–80 printable ASCII characters without spaces")
]
Vni = Annotated[int, Meta(ge=2, le=16777215)]
# The VRF's table, 1000 + id, is then 1001–4294967294. The kernel, networkd, ifupdown2 and FRR have
# 4294967295 too, but netplan reads it as a missing table (`vrf_table == G_MAXUINT`). The kernel's
# own tables are below 1000: 0 is none, 253 is default, 254 main, 255 local.
VpcId = Annotated[int, Meta(ge=1, le=4294966294)]
Mtu = Annotated[int, Meta(ge=1280, le=9216)]
Seconds = Annotated[int, Meta(ge=1, le=65535)]
# Of router advertisements: RFC 4861, section 6.2.1.
AdvertisementInterval = Annotated[int, Meta(ge=4, le=1800)]
RouterLifetime = Annotated[int, Meta(ge=0, le=9000)]
Lifetime = Annotated[int, Meta(ge=0, le=4294967295)]
Generation = Annotated[int, Meta(ge=0, le=9223372036854775807)]
