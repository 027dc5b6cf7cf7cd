"""Adds the name of the host or V-Net to a problem: an index alone tells a person nothing."""

import re
from typing import Any

from generator.errors import Problem, printable

_KINDS = {
    "hosts": "host",
    "vnets": "V-Net",
    "vpcs": "VPC",
    "serverClusters": "Server Cluster",
    "serverClusterTemplates": "template",
}
_PLACE = re.compile(rf"({'|'.join(_KINDS)})\[([0-9]{{1,9}})\]")


def named(problem: Problem, raw: dict[str, Any]) -> Problem:
    """Return a problem with the name of its host, V-Net, VPC, Server Cluster or template."""
    place = _PLACE.match(problem.place)
    if place is None:
        return problem
    section, number = place.groups()
    try:
        element = raw[section][int(number)]
        name = (element["server"] if section == "hosts" else element)["name"]
    except (KeyError, IndexError, TypeError):
        return problem
    shown = printable(name) if isinstance(name, str) else ""
    is_name = problem.place[place.end() :] in {".name", ".server.name"}
    if not shown or is_name:  # the value is the name already
        return problem
    return problem._replace(whose=f"{_KINDS[section]} {shown}")
