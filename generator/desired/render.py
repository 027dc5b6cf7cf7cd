"""Renders a host's model into the text of every file that the host should have.

A template's path is the file's path: `templates/<room>/etc/…/<file>.j2` becomes `/etc/…/<file>`.
A part of a path in brackets stands for each device of that kind: `10-netplan-[vxlan].network.d`
gives a folder for every VXLAN port, and the template's variable `vxlan` is the port. A template
that renders to nothing makes no file.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

from generator.desired.model import Host, Leaf

# The first line of every file, in a comment. With a generation or a time in it, a review would show
# every host as changed.
BANNER = "Written by evpn-host; edits are lost."

# Folders of templates that all backends share. Each backend also has a folder with its name.
_SHARED = ("frr", "kernel")

_EACH: dict[str, Callable[[Host], Iterable[Any]]] = {
    "bridge": lambda host: host.bridges,
    "vxlan": lambda host: host.vxlans,
    "vrf": lambda host: host.vrfs,
    "network_file": lambda host: host.network_files,
    "loopback_file": lambda host: [host.loopback_file],
}
_LEAF = "leaves/frr/"  # the path of a leaf's template begins with it
_PLACEHOLDER = re.compile(r"\[(\w+)\]")


@cache
def environment() -> Any:
    """Return the environment of all templates. It compiles each once, for any number of hosts."""
    # An apply with nothing to do runs each minute, and must not import it.
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
    env.globals.clear()  # no template uses one, and Jinja2 would copy them for each file
    return env


class _Output(NamedTuple):
    """A template for one file, or for a file per device of a kind."""

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


def render(
    host: Host, backend: str, local: str = "", *, guest_bgp: bool = False, guest_nat: bool = True
) -> dict[str, str]:
    """Return a host's files: path without leading slash to content, sorted by path.

    `local` is the operator's frr.conf.local. `guest_bgp` lets guests reach BGP and BFD, and
    `guest_nat` lets others translate their addresses. The same arguments give the same bytes.
    """
    context = {
        "host": host,
        "banner": BANNER,
        "local": local.rstrip("\n"),
        "guest_bgp": guest_bgp,
        "guest_nat": guest_nat,
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
    # The partials that leaves share with hosts call it `host`.
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
    """Patterns of the paths that rendered files can have, for any host and backend."""

    files: re.Pattern[str]
    folders: re.Pattern[str]  # above such a file
    drop_ins: re.Pattern[str]  # files in a folder of a device


@cache
def names() -> Names:
    """Return the templates' paths as patterns: brackets match the name of any device."""
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
