"""Renders a host's model into the text of every file that the host should have.

A template's path is the file's path: `templates/<room>/etc/…/<file>.j2` becomes `/etc/…/<file>`.
A part of a path in brackets stands for each device of that kind: `10-netplan-[vxlan].network.d`
gives a folder for every VXLAN port, and the device is known to the template by that name. A
template that renders to nothing makes no file.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from generator.desired.model import Host

# Folders of templates that every backend shares. Each backend has one of its own name besides.
_SHARED = ("frr", "kernel")

_EACH: dict[str, Callable[[Host], Iterable[Any]]] = {
    "bridge": lambda host: host.bridges,
    "vxlan": lambda host: host.vxlans,
    "vrf": lambda host: host.vrfs,
    "network_file": lambda host: host.network_files,
    "loopback_file": lambda host: [host.loopback_file],
}
_PLACEHOLDER = re.compile(r"\[(\w+)\]")


@cache
def environment() -> Any:
    """Return the environment of all templates. It compiles each once, however many hosts come."""
    # Only what renders imports it: an apply with nothing to do, each minute, does not.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=PackageLoader("generator"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # configuration files, not HTML; see payload and label()
    )


def banner(host: Host) -> str:
    """Return the first line of every rendered file."""
    return f"Written by evpn-host from payload generation {host.generation}; edits are lost."


def render(host: Host, backend: str, local: str = "", *, guest_bgp: bool = False) -> dict[str, str]:
    """Return a host's files: path without leading slash to content, sorted by path.

    `local` is the operator's frr.conf.local, and `guest_bgp` lets guests reach BGP and BFD. The
    same arguments give the same bytes.
    """
    env = environment()
    context = {
        "host": host,
        "banner": banner(host),
        "local": local.rstrip("\n"),
        "guest_bgp": guest_bgp,
    }
    files: dict[str, str] = {}
    for name in env.list_templates(extensions=["j2"]):
        room, _, path = name.removesuffix(".j2").partition("/")
        if room in (backend, *_SHARED) and path.startswith("etc/"):
            files.update(_outputs(env.get_template(name), path, context))
    return dict(sorted(files.items()))


def _outputs(template: Any, path: str, context: dict[str, Any]) -> Iterable[tuple[str, str]]:
    placeholder = _PLACEHOLDER.search(path)
    if placeholder is None:
        rendered = [(path, template.render(context))]
    else:
        kind = placeholder[1]
        rendered = [
            (path.replace(placeholder[0], device.name), template.render(context, **{kind: device}))
            for device in _EACH[kind](context["host"])
        ]
    yield from ((path, text) for path, text in rendered if text.strip())
