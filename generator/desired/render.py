"""Renders a host's model into the text of every file that the host should have.

A template's path is the file's path: `templates/<room>/etc/…/<file>.j2` becomes `/etc/…/<file>`.
A part of a path in brackets stands for each device of that kind: `10-netplan-[vxlan].network.d`
gives a folder for every VXLAN port, and the device is known to the template by that name. A
template that renders to nothing makes no file.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from generator.desired.model import Host, Leaf

# The first line of every file, in a comment. A generation or a time in it would differ between two
# payloads of the same host, and a review would show that host as changed.
BANNER = "Written by evpn-host; edits are lost."

# Folders of templates that every backend shares. Each backend has one of its own name besides.
_SHARED = ("frr", "kernel")

_EACH: dict[str, Callable[[Host], Iterable[Any]]] = {
    "bridge": lambda host: host.bridges,
    "vxlan": lambda host: host.vxlans,
    "vrf": lambda host: host.vrfs,
    "network_file": lambda host: host.network_files,
    "loopback_file": lambda host: [host.loopback_file],
}
_LEAF = "leaves/frr/"  # what the path of a leaf's template begins with
_PLACEHOLDER = re.compile(r"\[(\w+)\]")


@cache
def environment() -> Any:
    """Return the environment of all templates. It compiles each once, however many hosts come."""
    # Only what renders imports it: an apply with nothing to do, each minute, does not.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    env = Environment(
        loader=PackageLoader("generator"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,  # nobody changes a template while we run
        autoescape=False,  # noqa: S701  # configuration files, not HTML; see payload and label()
    )
    env.globals.clear()  # no template has one, and Jinja2 would copy them for each file
    return env


class _Output(NamedTuple):
    """A template of a file, or of one for each device of a kind."""

    path: str
    template: Any
    placeholder: str  # in the path, "" if there is none
    kind: str
    alike: bool  # whether the text is the same for each device


@cache
def _outputs(env: Any, backend: str) -> list[_Output]:
    """Return the outputs of a backend."""
    from jinja2 import meta  # noqa: PLC0415

    outputs = []
    for name in env.list_templates(extensions=["j2"]):
        room, _, path = name.removesuffix(".j2").partition("/")
        if room in (backend, *_SHARED) and path.startswith("etc/"):
            tree = env.parse(env.loader.get_source(env, name)[0], name)
            placeholder = _PLACEHOLDER.search(path)
            kind = placeholder[1] if placeholder else ""
            alike = kind not in meta.find_undeclared_variables(tree)
            alike = alike and not list(meta.find_referenced_templates(tree))
            whole = placeholder[0] if placeholder else ""
            outputs.append(_Output(path, env.get_template(name), whole, kind, alike))
    return outputs


def render(host: Host, backend: str, local: str = "", *, guest_bgp: bool = False) -> dict[str, str]:
    """Return a host's files: path without leading slash to content, sorted by path.

    `local` is the operator's frr.conf.local, and `guest_bgp` lets guests reach BGP and BFD. The
    same arguments give the same bytes.
    """
    context = {
        "host": host,
        "banner": BANNER,
        "local": local.rstrip("\n"),
        "guest_bgp": guest_bgp,
    }
    files: dict[str, str] = {}
    for output in _outputs(environment(), backend):
        if output.kind:
            files.update(_of_devices(output, context))
        elif (text := _text(output.template, context)).strip():
            files[output.path] = text
    return dict(sorted(files.items()))


def render_leaf(leaf: Leaf) -> dict[str, str]:
    """Return a leaf's files: path without leading slash to content, sorted by path."""
    env = environment()
    # Partials that hosts have too call it `host`.
    context = {"leaf": leaf, "host": leaf, "banner": BANNER}
    return {
        path: _text(env.get_template(f"{_LEAF}{path}.j2"), context) for path in _leaf_paths(env)
    }


@cache
def _leaf_paths(env: Any) -> list[str]:
    """Return the paths of a leaf's files, sorted."""
    names = env.list_templates(extensions=["j2"])
    top = f"{_LEAF}etc/"
    return [n.removeprefix(_LEAF).removesuffix(".j2") for n in names if n.startswith(top)]


class Names(NamedTuple):
    """What matches the paths that a rendered file can have, of any host and backend."""

    files: re.Pattern[str]
    folders: re.Pattern[str]  # above such a file
    drop_ins: re.Pattern[str]  # files in a folder that is a device's


@cache
def names() -> Names:
    """Return the names of rendered files: those of the templates, with any device's in brackets."""
    rooms = (each.partition("/") for each in environment().list_templates(extensions=["j2"]))
    paths = {path.removesuffix(".j2") for _, _, path in rooms if path.startswith("etc/")}
    folders = {path[:end] for path in paths for end, each in enumerate(path) if each == "/"}
    return Names(
        _any_of(paths), _any_of(folders), _any_of(p for p in paths if _PLACEHOLDER.search(p))
    )


def _any_of(paths: Iterable[str]) -> re.Pattern[str]:
    parts = ([re.escape(part) for part in _PLACEHOLDER.split(path)[::2]] for path in sorted(paths))
    return re.compile("|".join(r"[^/]+".join(each) for each in parts))


def _text(template: Any, variables: dict[str, Any]) -> str:
    """Render a template. `Template.render` would copy the variables twice."""
    context = template.new_context(variables, shared=True)
    return "".join(template.root_render_func(context))


def _of_devices(output: _Output, context: dict[str, Any]) -> Iterable[tuple[str, str]]:
    text = ""
    for device in _EACH[output.kind](context["host"]):
        if not (text and output.alike):
            text = _text(output.template, context | {output.kind: device})
        if text.strip():
            yield output.path.replace(output.placeholder, device.name), text
