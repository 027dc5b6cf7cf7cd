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

import pytest
from jinja2 import UndefinedError, nodes

from generator.desired import model, plan, render
from generator.desired.payload import load

REPO = Path(__file__).parents[1]
# Folders that are not ours: a tool made them, or they belong to another program.
ASIDE = {".git", ".venv", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", "site"}
GENERATOR = REPO / "generator"

# A module imports from the layers above its own, never from its own or one below.
LAYERS = (
    {"errors", "model", "netlink", "frr", "files", "events", "announce", "journal"},
    {"payload", "render", "config", "activate", "target", "kernel", "place"},
    {"record"},
    {"plan", "controller", "failover", "units", "guests"},
    {"before", "source", "stage", "detect"},
    {"converge", "part"},
    {"apply", "status"},
    {"lifecycle", "metrics"},
    {"report"},
    {"cli"},
    {"__main__"},
)


def imports(room: str) -> set[str]:
    """Return what a module or a whole package imports: our modules as `.name`, others in full."""
    modules = set()
    for node in nodes_of(room):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{room}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        modules |= {re.sub(r"^generator\.(\w+).*", r".\1", name) for name in names}
    return modules - {f".{room}", ".__version__"}


def calls(room: str) -> set[str]:
    """Return what a module or a whole package calls, as it is written there: `os.fsync`."""
    return {ast.unparse(node.func) for node in nodes_of(room) if isinstance(node, ast.Call)}


@cache
def nodes_of(room: str) -> tuple[ast.AST, ...]:
    """Return the syntax nodes of a module or of a whole package."""
    file, folder = GENERATOR / f"{room}.py", GENERATOR / room
    sources = [file] if file.exists() else sorted(folder.rglob("*.py"))
    return tuple(node for source in sources for node in ast.walk(ast.parse(source.read_text())))


def own(room: str) -> set[str]:
    return {name[1:] for name in imports(room) if name.startswith(".")}


def rooms() -> set[str]:
    modules = {file.stem for file in GENERATOR.glob("*.py")} - {"__init__"}
    return modules | {file.parent.name for file in GENERATOR.glob("*/__init__.py")}


def reach(room: str) -> set[str]:
    """Return all modules of ours that an import of a module also imports."""
    reached, pending = set(), {room}
    while pending:
        reached |= (current := pending)
        pending = set().union(*map(own, current)) - reached
    return reached - {room}


def test_imports_run_one_way() -> None:
    """Each module has a layer, and imports only from the layers before it."""
    assert rooms() == set().union(*LAYERS)
    allowed: set[str] = set()
    for layer in LAYERS:
        for room in layer:
            # Any module may raise what `errors` defines.
            assert own(room) <= allowed | {"errors"} - {room}, room
        allowed |= layer


# Modules that neither read nor change a host. Jinja2 reads the templates, which are a part of us.
PURE = {"collections", "functools", "hashlib", "inspect", "jinja2", "json", "msgspec", "netaddr"}
PURE |= {"re", "types", "typing", "unicodedata"}


def test_rendering_is_pure() -> None:
    """From payload to texts no module is imported that could read or change a host."""
    for room in ("payload", "render", "plan"):
        assert reach(room) <= {"errors", "model", "payload", "render", "target", "plan"}
        for each in {room, *reach(room)}:
            others = {name.split(".")[0] for name in imports(each) if not name.startswith(".")}
            assert others <= PURE, each
            assert not calls(each) & {"open", "exec", "eval", "__import__", "input"}, each


def test_the_hook_needs_no_payload() -> None:
    """The management hook reads only the record, so no template and no payload can break it."""
    assert not reach("failover") & {"payload", "render", "plan", "apply"}


def test_only_activate_runs_commands() -> None:
    """The one exception is detect, which asks a command for its version."""
    calls_that_run = re.compile(
        r"os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*|fork\w*)|\w+\.spawn"
    )
    running = {
        room
        for room in rooms()
        if any(re.match(r"(subprocess|pty|asyncio|multiprocessing)\b", n) for n in imports(room))
        or any(map(calls_that_run.fullmatch, calls(room)))
    }
    assert running == {"activate", "detect"}


def test_every_import_is_a_statement() -> None:
    """The tests above read statements; they would not see an import by a call."""
    for room in rooms():
        assert not {"__import__", "importlib.import_module"} & calls(room), room
        assert not {name for name in imports(room) if name.startswith("importlib")}, room


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
    taken: set[Any] = set()
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
        taken.add((place, number, bool(value)))
        return value

    monkeypatch.setattr(env, "_parse", watched)
    env.filters["note"] = note
    return branches, taken


@pytest.fixture
def rendered_watched(
    monkeypatch: pytest.MonkeyPatch, cases: list[Path]
) -> tuple[set[Any], set[Any]]:
    env = render.environment.__wrapped__()
    monkeypatch.setattr(render, "environment", lambda: env)
    branches, taken = _watch(env, monkeypatch)
    for case in cases:
        for host in load(case.read_bytes()).hosts:
            for backend in render.ROOMS:
                for local in ("", "ip prefix-list MINE seq 5 permit 192.0.2.0/24\n"):
                    render.render(host, backend, local)
    return branches, taken


def test_every_branch_is_rendered(rendered_watched: tuple[set[Any], set[Any]]) -> None:
    """The payloads in examples/ and tests/payloads take each branch of each template."""
    branches, taken = rendered_watched
    assert len(branches) > 20
    assert "\n".join(map(str, sorted(branches - taken))) == ""


def test_every_template_is_used(rendered_watched: tuple[set[Any], set[Any]]) -> None:
    """An output includes each partial."""
    del rendered_watched
    env = render.environment()
    assert env.cache
    assert sorted(env.list_templates(extensions=["j2"])) == sorted(name for _, name in env.cache)
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
    """Each rendered file begins with one comment: its author and its generation."""
    payload = load(accepted.read_bytes())
    line = f" Written by evpn-host from payload generation {payload.generation}; edits are lost."
    for host in payload.hosts:
        for path, text in render.render(host, backend).items():
            mark = "!" if path.endswith("frr.conf") else "#"
            assert text.splitlines()[0] == mark + line, path
            assert plan.ours(text)
            assert text.endswith("\n")
            assert not text.endswith("\n\n"), path


def test_order_means_nothing(accepted: Path, backend: str) -> None:
    """A payload with shuffled lists gives the same bytes; only the order of gateways counts."""
    chance = random.Random(accepted.name)  # noqa: S311  # any order is right, as long as it is the same each time
    shuffled = json.loads(accepted.read_text())

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
    assert sorted(listed) == sorted({*vocabulary(), "banner", "local", *_placeholders()})


def _placeholders() -> set[str]:
    return {f"[{kind}]" for kind in render._EACH}


# --- What mypy and ruff read ---


def _files(top: Path) -> list[Path]:
    """Return the files at or below a path, except links to other files of ours."""
    inside = top.rglob("*") if top.is_dir() else [top]
    return [each for each in inside if each.is_file() and not each.is_symlink()]


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
    """It has `generator` with templates, and nothing else; when installed it renders snapshots."""
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
