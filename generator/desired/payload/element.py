"""What every object of the payload has."""

from typing import Any

import msgspec


class Element(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """An object of the payload, with the fields of the real API that mean nothing on a host."""

    id: Any = None
    tags: Any = None
    sites: Any = None
    site: Any = None
    tenant: Any = None
    admin_tenant: Any = None
    guest_tenant: Any = None
    is_system: Any = None
    is_default: Any = None
    vlan: Any = None
    vlans: Any = None
    native_vlan: Any = None
    access_mode: Any = None
    ip_family: Any = None
    port_count: Any = None
    custom_data: Any = None
    mgmt_address: Any = None
