"""The payload's JSON Schema, from the very types that decode it."""

from typing import Any

import msgspec

from generator.payload.document import ROLE, FleetDocument, HostDocument

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IGNORED = "accepted and ignored"

_OTHER_HOST = {
    "title": "OtherHost",
    "description": "A host of another role: it is left out, and nothing else of it is looked at.",
    "type": "object",
    "properties": {
        "server": {
            "type": "object",
            "properties": {"srvRole": {"type": "string", "not": {"const": ROLE}}},
            "required": ["srvRole"],
        }
    },
    "required": ["server"],
}


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a Host or a Fleet: its form. Rules between fields are `load`'s."""
    roots, types = msgspec.json.schema_components(
        [HostDocument, FleetDocument], schema_hook=_leaf, ref_template="#/$defs/{name}"
    )
    for type_ in types.values():
        type_["properties"] = {n: _plain(field) for n, field in type_["properties"].items()}
    types["FleetDocument"]["properties"]["hosts"]["items"] = {
        "anyOf": [{"$ref": "#/$defs/FleetHost"}, {"$ref": "#/$defs/OtherHost"}]
    }
    return {
        "$schema": DIALECT,
        "title": "evpn-host payload",
        "anyOf": list(roots),
        "$defs": types | {"OtherHost": _OTHER_HOST},
    }


def _leaf(type_: type[Any]) -> dict[str, Any]:
    return dict(type_.schema)


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """A field without what only msgspec means by it: defaults of ignored fields and objects."""
    if field == {"default": None}:
        return {"description": IGNORED}
    return {k: v for k, v in field.items() if not (k == "default" and isinstance(v, dict))}
