"""The payload's JSON Schema, from the very types that decode it."""

import re
from inspect import cleandoc
from typing import Any

import msgspec

from generator.desired.payload.document import ROLE, FleetDocument, HostDocument

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IGNORED = "accepted and ignored"

_OTHER_HOST = {
    "title": "OtherHost",
    "description": "A host of another role: it is left out, and nothing else of it is looked at.",
    "type": "object",
    "properties": {
        "server": {
            "description": f"With a `srvRole` other than `{ROLE}`, and whatever else.",
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
        type_["description"], meanings = _meanings(cleandoc(type_.get("description", "")))
        type_["properties"] = {
            name: _plain(field) | meanings.get(name, {})
            for name, field in type_["properties"].items()
        }
    types["FleetDocument"]["properties"]["hosts"]["items"] = {
        "anyOf": [{"$ref": "#/$defs/FleetHost"}, {"$ref": "#/$defs/OtherHost"}]
    }
    return {
        "$schema": DIALECT,
        "title": "evpn-host payload",
        "anyOf": list(roots),
        "$defs": types | {"OtherHost": _OTHER_HOST},
    }


def _meanings(docstring: str) -> tuple[str, dict[str, dict[str, str]]]:
    """What the docstring of an object says of it, and of each of its fields."""
    summary, _, rest = docstring.partition("\n\n")
    fields = re.findall(r"^(\w+): (.*(?:\n .*)*)", rest, re.MULTILINE)
    return summary, {
        "kind": {"description": "What the document describes: one host, or many."},
        **{name: {"description": " ".join(text.split())} for name, text in fields},
    }


def _leaf(type_: type[Any]) -> dict[str, Any]:
    return dict(type_.schema)


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """A field without what only msgspec means by it: defaults of ignored fields and objects."""
    if field == {"default": None}:
        return {"description": IGNORED}
    return {k: v for k, v in field.items() if not (k == "default" and isinstance(v, dict))}
