"""The payload's JSON Schema, made from the types that decode it."""

import re
from inspect import cleandoc
from typing import Any

import msgspec

from generator.desired.payload import advertisements, document, fleet
from generator.desired.payload.document import HostDocument
from generator.desired.payload.element import Element
from generator.desired.payload.fleet import FleetDocument, Open, OtherHost

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IGNORED = "accepted and ignored"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a Host or a Fleet. `load` checks rules between fields."""
    (*roots, _), types = msgspec.json.schema_components(
        [HostDocument, FleetDocument, OtherHost], schema_hook=_leaf, ref_template="#/$defs/{name}"
    )
    structs = vars(document) | vars(fleet) | vars(advertisements)
    for name, type_ in types.items():
        type_["description"], meanings = _meanings(structs[name])
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
        "$defs": types,
    }


def _meanings(type_: type[Any]) -> tuple[str, dict[str, dict[str, str]]]:
    """Return an object's description and those of its fields, from its docstring.

    An inherited field has the description from the object that defines it.
    """
    meanings = {"kind": {"description": "What the document describes: one host, or many."}}
    summary = ""
    for base in reversed(type_.__mro__):
        if issubclass(base, (Element, Open)):
            summary, _, rest = cleandoc(base.__doc__ or "").partition("\n\n")
            fields = re.findall(r"^(\w+): (.*(?:\n .*)*)", rest, re.MULTILINE)
            meanings |= {name: {"description": " ".join(text.split())} for name, text in fields}
    return summary, meanings


def _leaf(type_: type[Any]) -> dict[str, Any]:
    return dict(type_.schema)


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """Return a field without the defaults of ignored fields and of objects."""
    if field == {"default": None}:
        return {"description": IGNORED}
    return {k: v for k, v in field.items() if not (k == "default" and isinstance(v, dict))}
