"""The structure of the code: which module imports which, what templates use, what is shipped."""

import ast
import importlib
import json
import os
import random
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jinja2 import UndefinedError, nodes

from generator.activation import backends
from generator.desired import model, plan, render
from generator.desired.payload import load
from generator.desired.payload.leaves import Leaves, switches
from generator.verbs import review_page
from tests.strategies import parsed

REPO = Path(__file__).parents[1]
# Folders that are not ours: a tool created them, or they belong to another program.
ASIDE = {".git", ".venv", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", "site"}
GENERATOR = REPO / "generator"
LEAVES, SWITCHES = REPO / "tests/payloads/fleet-leaves.yaml", REPO / "tests/switches.yml"

# A room imports from itself and from the rooms before it.
ROOMS = (
    "secrets",
    "errors",
    "desired",
    "state",
    "observed",
    "activation",
    "controller",
    "reporting",
    "failover",
    "verbs",
    "payload_verbs",
    "history_verbs",
    "cli",
    "__main__",
)


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of each module, by its name below `generator`: `state.record`."""
    trees = {}
    for file in GENERATOR.rglob("*.py"):
        name = ".".join(file.relative_to(GENERATOR).with_suffix("").parts)
        trees[name.removesuffix(".__init__")] = ast.parse(file.read_text())
    del trees["__init__"]
    return trees


@cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    """Return the syntax nodes of a module."""
    return tuple(ast.walk(modules()[module]))


def imports(module: str) -> set[str]:
    """Return what a module imports: our modules as `.state.record`, others in full."""
    names = set()
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {_ours(name) for name in names} - {".__version__"}


def _ours(name: str) -> str:
    """Return `.state.record` for `generator.state.record.Record`; other names as they are."""
    if not name.startswith("generator."):
        return name
    name = name.removeprefix("generator.")
    while name not in modules() and "." in name:
        name = name.rpartition(".")[0]
    return f".{name}"


def own(module: str) -> set[str]:
    """Return the modules of ours that a module imports."""
    return {name[1:] for name in imports(module) if name.startswith(".")} - {module}


def calls(module: str) -> set[str]:
    """Return what a module calls, as it is written there: `os.fsync`."""
    return {ast.unparse(node.func) for node in nodes_of(module) if isinstance(node, ast.Call)}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def inside(room: str) -> set[str]:
    """Return the modules of a room."""
    return {module for module in modules() if room_of(module) == room}


def reach(module: str) -> set[str]:
    """Return all modules of ours that an import of a module also imports."""
    reached, pending = set(), {module}
    while pending:
        reached |= (current := pending)
        pending = set().union(*map(own, current)) - reached
    return reached - {module}


def test_imports_run_one_way() -> None:
    """A room imports only from the rooms before it, and no two modules import each other."""
    assert {room_of(module) for module in modules()} == set(ROOMS)
    for module in modules():
        room = ROOMS.index(room_of(module))
        assert {room_of(name) for name in own(module)} <= set(ROOMS[: room + 1]), module
        for other in own(module):
            assert module not in reach(other), (module, other)


# Modules that neither read nor change a host. Jinja2 reads the templates, which are a part of us.
PURE = {"collections", "functools", "hashlib", "inspect", "jinja2", "json", "msgspec", "netaddr"}
PURE |= {"difflib", "ipaddress", "itertools", "re", "ruamel", "types", "typing", "unicodedata"}


def test_what_is_desired_is_pure() -> None:
    """From payload to texts no module is imported that could read or change a host."""
    for module in inside("desired"):
        others = {name.split(".")[0] for name in imports(module) if not name.startswith(".")}
        assert others <= PURE, module
        assert not calls(module) & {"open", "exec", "eval", "__import__", "input"}, module


# Methods and functions that change files.
WRITES = re.compile(
    r"(.*\.)?(write_text|write_bytes|write_plain|unlink|rmdir|mkdir|rename|chmod|touch|symlink_to"
    r"|hardlink_to|rmtree|copy|copy2|copyfile|copytree|move|chown|makedirs|truncate|fsync)"
    r"|files\.(write|remove\w*|make_folder|set_mode)|open"
)
RUNS = re.compile(r"os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*|fork\w*)|\w+\.spawn")
COMMANDS = re.compile(r"(subprocess|pty|asyncio|multiprocessing)\b")


def test_what_is_observed_changes_nothing() -> None:
    """No module there writes a file, runs a command or asks netlink for anything but a dump."""
    for module in inside("observed"):
        assert not [call for call in calls(module) if WRITES.fullmatch(call)], module
        assert not [name for name in imports(module) if COMMANDS.match(name)], module
    netlink = (GENERATOR / "observed/netlink.py").read_text()
    assert set(re.findall(r"\bRTM_\w+", netlink)) == {
        f"RTM_GET{kind}" for kind in ("LINK", "ADDR", "ROUTE", "NEIGH", "RULE")
    }


def test_few_modules_write_files() -> None:
    """Besides `state` and `activation` only these modules write; nothing of it is activated."""
    elsewhere = {
        module
        for module in modules()
        if room_of(module) not in {"state", "activation"}
        if any(WRITES.fullmatch(call) for call in calls(module))
    }
    assert elsewhere == {
        "controller.source",  # where the last good payload came from
        "failover.hook",
        "reporting.metrics",
        "reporting.report",  # removes the metrics
        "verbs.guests",
        "verbs.render",
        "verbs.review_page",
        "verbs.uninstall",
    }


def test_files_are_bytes_until_one_place_decodes_them() -> None:
    """`read_text` would depend on the locale, and fail on a byte that is not UTF-8.

    The exceptions read numbers and addresses below /sys and /proc.
    """
    reading = {
        module
        for module in modules()
        if any(re.search(r"\.(read|write)_text$", call) for call in calls(module))
    }
    assert reading == {
        "activation.before",
        "activation.netplan",
        "failover.announce",
        "observed.machine",
    }


def test_the_hook_needs_no_payload() -> None:
    """The management hook reads only the record, so no template and no payload can break it."""
    for module in inside("failover"):
        rooms = {name for name in reach(module) if name.startswith(("desired", "controller"))}
        assert rooms <= {"desired", "desired.model", "desired.target"}, module


def test_one_module_runs_commands() -> None:
    """ifupdown asks a command for its version too. `verbs.workers` forks, and starts no program."""
    running = {
        module
        for module in modules()
        if any(map(COMMANDS.match, imports(module))) or any(map(RUNS.fullmatch, calls(module)))
    }
    assert running == {"activation.commands", "activation.ifupdown", "verbs.workers"}


def test_every_import_is_a_statement() -> None:
    """Every import is a statement: the tests above would not see an import by a call."""
    for module in modules():
        assert not {"__import__", "importlib.import_module"} & calls(module), module
        assert not {name for name in imports(module) if name.startswith("importlib")}, module


def test_the_registry_alone_names_backends() -> None:
    """A backend is a module, a folder of templates and an entry in the registry."""
    assert {backend.name for backend in backends.registered()} == set(backends.NAMES)
    for name in backends.NAMES:
        assert (REPO / "templates" / name).is_dir()
        assert f"activation.{name}" in modules()
    for module in modules():
        if module in {"activation.backends", *(f"activation.{name}" for name in backends.NAMES)}:
            continue
        strings = {node.value for node in nodes_of(module) if isinstance(node, ast.Constant)}
        assert not strings & set(backends.NAMES), module
        assert not {f".activation.{name}" for name in backends.NAMES} & imports(module), module


LINES, FUNCTION_LINES = 350, 45


def test_modules_and_functions_are_short() -> None:
    """A module fits into a reader's head, and a function on a screen."""
    for file in GENERATOR.rglob("*.py"):
        assert len(file.read_text().splitlines()) <= LINES, file
    for module in modules():
        for node in nodes_of(module):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= FUNCTION_LINES, f"{module}.{node.name}: {length}"


def test_the_command_line_is_typed() -> None:
    """No signature there has `Any`, so mypy sees how verbs are wired."""
    assert "typing.Any" not in imports("cli") | imports("verbs.context") | imports("verbs.command")


# --- Templates ---


# Nodes of a template with branches, and the fields that choose the branch.
_WAYS: dict[type[nodes.Node], tuple[str, ...]] = {
    nodes.If: ("test",),
    nodes.CondExpr: ("test",),
    nodes.For: ("iter", "test"),
    nodes.And: ("left", "right"),
    nodes.Or: ("left", "right"),
}


def _watch(env: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[set[Any], set[Any]]:
    """Make each condition and loop of the templates note which branch it takes.

    Returns all branches, and those that were taken: (place and text of the line, which of its
    conditions, the branch). A loop has one branch: through it. Each operand of `and` and `or` has
    both, like the whole condition.
    """
    branches: set[Any] = set()
    visited: set[Any] = set()
    parse = env._parse

    def watched(source: str, name: str, filename: str) -> nodes.Template:
        tree: nodes.Template = parse(source, name, filename)
        lines = source.splitlines()
        branching = list(tree.find_all(tuple(_WAYS)))
        parts = [(node, field) for node in branching for field in _WAYS[type(node)]]
        for number, (node, field) in enumerate(parts):
            inside = getattr(node, field)
            if inside is None:  # a loop without a condition
                continue
            place = f"{name}:{node.lineno}: {lines[node.lineno - 1].strip()}"
            branches.update((place, number, way) for way in {True, field == "iter"})
            arguments = [nodes.Const(place), nodes.Const(number)]
            setattr(node, field, nodes.Filter(inside, "note", arguments, [], None, None))
        return tree

    def note(value: Any, place: str, number: int) -> Any:
        visited.add((place, number, bool(value)))
        return value

    monkeypatch.setattr(env, "_parse", watched)
    env.filters["note"] = note
    return branches, visited


@pytest.fixture
def rendered_watched(
    monkeypatch: pytest.MonkeyPatch, cases: list[Path]
) -> tuple[set[Any], set[Any]]:
    env = render.environment.__wrapped__()
    monkeypatch.setattr(render, "environment", lambda: env)
    branches, visited = _watch(env, monkeypatch)
    leaves = Leaves(load(LEAVES.read_bytes()), switches(SWITCHES.read_bytes()))
    for name in leaves.names:
        render.render_leaf(leaves.leaf(name))
    for case in cases:
        for host in load(case.read_bytes()).hosts:
            for backend in backends.NAMES:
                for local in ("", "ip prefix-list MINE seq 5 permit 192.0.2.0/24\n"):
                    nat = not local
                    render.render(host, backend, local, guest_bgp=bool(local), guest_nat=nat)
                # Branches for an operator with files of networkd and a new netplan.
                machine = {"foreign_files": {"lo": "20-lo.network"}, "optional_vrfs": True}
                render.render(msgspec.structs.replace(host, **machine), backend)
                for kind in ("ethernets", "bonds"):  # its management NIC asks for a lease
                    lease = model.Lease(kind, "all-en")
                    files = dict.fromkeys((each.ifname for each in host.uplinks), "all-en.network")
                    asks = msgspec.structs.replace(host, lease=lease, foreign_files=files)
                    render.render(asks, backend)
    return branches, visited


def test_every_branch_is_rendered(rendered_watched: tuple[set[Any], set[Any]]) -> None:
    """The payloads in examples/ and tests/payloads take each branch of each template."""
    branches, visited = rendered_watched
    assert len(branches) > 20
    assert "\n".join(map(str, sorted(branches - visited))) == ""


def test_every_template_is_used(rendered_watched: tuple[set[Any], set[Any]]) -> None:
    """An output includes each partial. The page of a review is no host's file."""
    del rendered_watched
    env = render.environment()
    assert env.cache
    templates = set(env.list_templates(extensions=["j2"])) - {review_page.TEMPLATE}
    assert sorted(templates) == sorted(name for _, name in env.cache)
    others = set(env.list_templates()) - set(env.list_templates(extensions=["j2"]))
    assert others == {"README.md"}


def test_templates_do_not_compute() -> None:
    """They have loops and tests, but no arithmetic, variable or macro, and only one filter."""
    env = render.environment()
    filters: set[str] = set()
    for name in env.list_templates(extensions=["j2"]):
        tree = env.parse(env.loader.get_source(env, name)[0])
        own = (nodes.BinExpr, nodes.UnaryExpr, nodes.Assign, nodes.AssignBlock, nodes.Macro)
        logic = (nodes.And, nodes.Or, nodes.Not)
        assert [each for each in tree.find_all(own) if not isinstance(each, logic)] == [], name
        filters |= {each.name for each in tree.find_all(nodes.Filter)}
    assert filters == {"length"}


def test_an_unknown_name_stops_the_rendering() -> None:
    """A name that the model lacks does not become an empty text."""
    template = render.environment().from_string("{{ host.nme }}")
    with pytest.raises(UndefinedError, match="nme"):
        template.render(host=load((REPO / "examples/k8s01.json").read_bytes()).hosts[0])


def test_first_line_says_who_wrote_it(accepted: Path, backend: str) -> None:
    """Each rendered file begins with one comment that names its author, and nothing else."""
    line = " Written by evpn-host; edits are lost."
    for host in load(accepted.read_bytes()).hosts:
        for path, text in render.render(host, backend).items():
            mark = "!" if path.endswith("frr.conf") else "#"
            assert text.splitlines()[0] == mark + line, path
            assert plan.ours(text)
            assert text.endswith("\n")
            assert not text.endswith("\n\n"), path


def test_order_means_nothing(accepted: Path, backend: str) -> None:
    """A payload with shuffled lists gives the same bytes; only the order of gateways counts."""
    chance = random.Random(accepted.name)  # noqa: S311  # any order is right, as long as it is the same each time
    shuffled = parsed(accepted)

    def shuffle(value: Any) -> None:
        for name, inside in value.items() if isinstance(value, dict) else ():
            if isinstance(inside, list) and name != "gateways":
                chance.shuffle(inside)
            shuffle(inside)
        for inside in value if isinstance(value, list) else ():
            shuffle(inside)

    shuffle(shuffled)
    before, after = load(accepted.read_bytes()), load(json.dumps(shuffled).encode())
    for old, new in zip(before.hosts, after.hosts, strict=True):
        assert render.render(old, backend) == render.render(new, backend)


# --- The vocabulary ---


def vocabulary() -> Iterator[str]:
    """Yield every name that the model gives to a template."""
    for struct in vars(model).values():
        if isinstance(struct, type) and issubclass(struct, model.Model):
            if struct in (model.Model, model.Device):
                continue
            derived = (property, cached_property)
            names = [name for name, value in vars(struct).items() if isinstance(value, derived)]
            for name in [*struct.__struct_fields__, *names]:
                yield f"{struct.__name__.lower()}.{name}"


def test_vocabulary_is_complete() -> None:
    """templates/README.md lists all names that a template may use, and no others."""
    text = (REPO / "templates/README.md").read_text()
    listed = re.findall(r"^\| `([a-z0-9_.\[\]]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(
        {*vocabulary(), "banner", "guest_bgp", "guest_nat", "local", *_placeholders()}
    )


def _placeholders() -> set[str]:
    return {f"[{kind}]" for kind in render._EACH}


# --- What mypy and ruff read ---


def _files(top: Path) -> list[Path]:
    """Return the files at or below a path, except links to other files of ours."""
    inside = top.rglob("*") if top.is_dir() else [top]
    return [each for each in inside if each.is_file() and not each.is_symlink()]


def test_no_large_file_is_shipped() -> None:
    """A clone stays small: no wheel and no archive lies among the sources."""
    known = {path for path in REPO.iterdir() if path.name not in ASIDE | {"build", "dist"}}
    files = [each for path in known for each in (path, *path.rglob("*")) if each.is_file()]
    assert {str(each.relative_to(REPO)) for each in files if each.stat().st_size > 500_000} == set()


def test_mypy_and_ruff_read_all_python() -> None:
    """Their settings name every folder with modules, and each program without `.py`."""
    tools = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]
    files, programs = tools["mypy"]["files"], tools["ruff"]["extend-include"]
    count = 0
    for file in (file for top in REPO.iterdir() if top.name not in ASIDE for file in _files(top)):
        path = file.relative_to(REPO)
        if file.suffix == ".py":
            assert any(path.is_relative_to(each) for each in files), path
            count += 1
        elif re.match(rb"#!.*python", file.read_bytes()[:80]):
            assert str(path) in files, path
            assert str(path) in programs, path
    assert count > 100


# --- What is shipped ---


def test_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel has `generator` with templates alone; installed, it renders snapshots."""
    backend = importlib.import_module(
        "hatchling.build"
    )  # from the group `dev`, so it is always installed
    monkeypatch.chdir(REPO)
    wheel = tmp_path / backend.build_wheel(str(tmp_path))
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {re.sub(r"-[\d.]+\.dist-info$", ".dist-info", top) for top in tops} == {
        "generator",
        "evpn_host.dist-info",
    }
    shipped = {name for name in names if name.startswith("generator/templates/")}
    templates = {
        f"generator/templates/{file.relative_to(REPO / 'templates')}"
        for file in (REPO / "templates").rglob("*")
        if file.is_file()
    }
    assert shipped == templates
    for folder in ("systemd", "cron.d"):
        units = {f"generator/{folder}/{f.name}" for f in (REPO / "packaging" / folder).iterdir()}
        assert units <= set(names)
    _run_installed(wheel, tmp_path)


def _run_installed(wheel: Path, folder: Path) -> None:
    """Install a wheel in a virtual environment, as pipx does, and compare what it renders."""
    alone = folder / "venv"
    venv.create(alone)
    pip = [sys.executable, "-m", "pip", "--python", str(alone / "bin/python"), "install"]
    pip += ["--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(pip, check=True, timeout=120)
    # The libraries are those of the tests. Their `generator` is an editable install by a .pth file,
    # and Python does not read .pth files of a folder in PYTHONPATH.
    environment = {"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": os.defpath}
    out = folder / "k8s01-netplan"
    argv = [str(alone / "bin/evpn-host"), "render", "-p", str(REPO / "examples/k8s01.json")]
    argv += ["-b", "netplan", "-o", str(out)]
    subprocess.run(argv, check=True, timeout=60, env=environment, cwd=folder)
    snapshot = REPO / "snapshots" / out.name
    files = [file.relative_to(snapshot) for file in snapshot.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        assert (out / file).read_bytes() == (snapshot / file).read_bytes(), file
