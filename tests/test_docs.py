"""The pages build without the network, agree with the command, and show commands that work.

`pytest tests/test_docs.py --snapshot-update` writes the reference of the payload anew.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest

from generator.cli import evpn_host as cli
from generator.desired.payload.schema import IGNORED, schema
from tests import documents
from tests.documents import PAGES, REPO, Block

LANGUAGES = {"sh", "text", "yaml", "json", "python", "ini", "xml"}
BEGIN, END = "<!-- reference: from the schema, by tests/test_docs.py -->", "<!-- /reference -->"


# --- The site ---


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site with --strict, where there is no network."""
    folder = tmp_path_factory.mktemp("site")
    result = build(REPO, folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def offline() -> list[str]:
    """Return the words that start a command without a network, none where that needs root."""
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return [] if probe.returncode else ["unshare", "--net"]


def build(repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository's pages with the command of docs/contributing.md."""
    # --quiet would hide warnings from --strict too.
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    return subprocess.run(
        [*offline(), *argv], cwd=repository, capture_output=True, text=True, check=False
    )


def test_faults_of_a_page_fail_the_build(tmp_path: Path) -> None:
    """A link to no page, one to no heading, and a page without a link: mkdocs warns of each."""
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    shutil.copy(REPO / "mkdocs.yml", tmp_path)
    (tmp_path / "docs/lost.md").write_text("[No page](no.md), [no heading](index.md#no)\n")
    result = build(tmp_path, tmp_path / "site")
    assert result.returncode == 1
    assert "Aborted with 3 warnings" in result.stdout, result.stdout + result.stderr


def tables() -> Iterator[tuple[str, list[str]]]:
    """Yield every table of every page: from its headings to the first empty line or comment."""
    for page in PAGES:
        text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for table in re.findall(r"^\|.*\n(?:(?!<!--).+\n)*", text, re.MULTILINE):
            yield page.name, table.splitlines()


def test_tables_are_whole() -> None:
    """Each row is one line with as many cells as its table has columns; no code span is cut."""
    all_tables = list(tables())
    assert len(all_tables) > 30
    for page, lines in all_tables:
        columns = len(_cells(lines[0]))
        for line in lines:
            assert re.fullmatch(r"\|.*(?<!\\)\|", line), f"{page}: {line}"
            assert len(_cells(line)) == columns, f"{page}: {line}"
            assert all(cell.count("`") % 2 == 0 for cell in _cells(line)), f"{page}: {line}"


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


# Addresses that a browser fetches for a style sheet; it fetches no data: address.
_STYLE_ADDRESS = re.compile(r"""url\(\s*["']?(?!data:)([^"')]+)|@import\s*["']([^"']+)""")


class _Addresses(HTMLParser):
    """Collects the addresses that a browser fetches by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = [(name, value) for name, value in attrs if value]
        for name, value in attributes:
            if name in {"src", "poster", "data"} or (name == "href" and tag in {"link", "image"}):
                self.fetched.append(value)
            elif name == "srcset":
                self.fetched += [each.split()[0] for each in value.split(",")]
            elif name == "style":
                self.handle_data(value)

    def handle_data(self, data: str) -> None:
        self.fetched += [a or b for a, b in _STYLE_ADDRESS.findall(data)]


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    """A page has no font, script or picture of others, and all that it needs is in the site."""
    pages = sorted([*site.rglob("*.html"), *site.rglob("*.css")])
    assert len(pages) > 10
    for page in pages:
        addresses = _Addresses()
        if page.suffix == ".css":
            addresses.handle_data(page.read_text())
        else:
            addresses.feed(page.read_text())
            assert addresses.fetched
        for address in addresses.fetched:
            assert "//" not in address, f"{page}: {address}"
            file = address.partition("#")[0].partition("?")[0]
            folder = site if file.startswith("/") else page.parent
            assert (folder / file.removeprefix("/")).exists(), f"{page}: {address}"


def test_links_to_files_lead_somewhere() -> None:
    """Each link to a file leads to one, also out of docs/, where the site shows only names."""
    count = 0
    for page in [*PAGES, REPO / "CHANGELOG.md"]:
        text = re.sub(r"`[^`]*`", "", page.read_text())
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            count += 1
    assert count > 30


# --- Commands of the pages ---


def test_each_block_has_a_language() -> None:
    """`sh` is for commands, `text` for output; without a language no test would look at a block."""
    wrong = [
        f"{block.page}:{block.line}: {block.language or 'no language'}"
        for block in documents.blocks()
        if block.language not in LANGUAGES
    ]
    assert wrong == [], f"not one of {', '.join(sorted(LANGUAGES))}"


def test_the_list_of_commands_that_no_test_runs_is_right() -> None:
    """A page shows each command on the list, and the tests that the list names exist."""
    shown = [
        c
        for block in documents.blocks()
        if block.language == "sh"
        for c in documents.commands(block)
    ]
    for command, reason in documents.NOT_RUN.items():
        assert any(c == command or c.startswith(f"{command} ") for c in shown), command
        for file, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", reason):
            assert not name or f"def {name}(" in (REPO / file).read_text(), reason
            assert (REPO / file).exists(), reason


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository, so that commands may change anything in the copy."""
    folder = tmp_path_factory.mktemp("copy") / "evpn-host"
    # Without Git, and without the files that tools made.
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", ".*_cache", "site", ".hypothesis"
    )
    shutil.copytree(REPO, folder, symlinks=True, ignore=left_out)
    for example in (folder / "examples").iterdir():
        if example.suffix in {".json", ".yaml"}:
            shutil.copy(example, folder)
    subprocess.run(["git", "init", "--quiet", "."], cwd=folder, check=True)
    command = folder / ".bin/evpn-host"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nexec python -m generator "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "block",
    [block for block in documents.shown() if not documents.in_the_lab(block)],
    ids=lambda block: f"{block.page}-{block.line}",
)
def test_commands_succeed(block: Block, copy: Path) -> None:
    """Each block of commands succeeds in a copy of the repository."""
    excluded = [command for command in documents.commands(block) if documents.not_run(command)]
    assert not excluded, "run all commands of a block, or none"
    path = [str(copy / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    with subprocess.Popen(
        [*offline(), "bash", "-euo", "pipefail", "-c", block.text],
        cwd=copy,
        env=os.environ | {"PATH": os.pathsep.join(path), "PYTHONPATH": str(copy)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            process.wait(600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # ends what the block left running
        assert process.stdout
        assert process.returncode == 0, process.stdout.read()


def spans() -> Iterator[tuple[str, list[str]]]:
    """Yield every command of ours in running text, with its page."""
    for page in PAGES:
        text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`(?:sudo )?(evpn-host\s[^`]+)`", text):
            yield page.name, shlex.split(span.replace("\\|", "|").partition(" | ")[0])


def test_commands_in_running_text_exist() -> None:
    """Commands in running text have verbs and options that exist."""
    commands = list(spans())
    assert len(commands) > 10
    for page, (_, verb, *words) in commands:
        if verb == "--version":
            continue
        assert verb in cli.commands, f"{page}: evpn-host {verb}"
        known = options(cli.commands[verb])
        used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert used <= known, f"{page}: evpn-host {verb} {' '.join(words)}"


def options(command: click.Command) -> set[str]:
    """Return the options of a verb, as they are typed."""
    return {name for option in command.params for name in option.opts if name.startswith("-")}


def contract_verbs() -> dict[str, set[str]]:
    """Return the verbs of docs/contract.md, and the options that their rows name."""
    verbs: dict[str, set[str]] = {}
    verb = ""
    table = (REPO / "docs/contract.md").read_text().partition("## Verbs")[2].partition("\n## ")[0]
    for first, row in re.findall(r"^\| (`[a-z]\S*|…)(.*)$", table, re.MULTILINE):
        if first != "…":
            verb = first.strip("`")
        spans = re.findall(r"`([^`]*)`", first + row)
        words = {word for span in spans for word in span.split() if word.startswith("-")}
        verbs.setdefault(verb, set()).update(words)
    return verbs


def test_the_contract_has_every_verb_and_option() -> None:
    """docs/contract.md names each verb and option, and no other."""
    verbs = contract_verbs()
    assert verbs.keys() == cli.commands.keys()
    common = {"--root", "-v", "--verbose"}  # the page names it once, for all verbs
    for verb, words in verbs.items():
        assert words <= options(cli.commands[verb]), verb
        missing = [
            option.opts
            for option in cli.commands[verb].params
            if isinstance(option, click.Option) and not set(option.opts) & (words | common)
        ]
        assert missing == [], verb


# --- The reference of the payload ---


def reference() -> str:
    """Return the schema as tables, in the order in which a reader meets the objects."""
    types = schema()["$defs"]
    order = ["HostDocument"]
    for name in order:
        references = re.findall(r"#/\$defs/(\w+)", json.dumps(types[name]))
        order += [each for each in dict.fromkeys(references) if each not in order]
    order += [name for name in types if name not in order]
    return "\n".join(line for name in order for line in _table(name, types[name]))


def _table(name: str, type_: dict[str, Any]) -> Iterator[str]:
    yield f"\n### {name.removesuffix('Document')}\n"
    yield f"{type_['description']}\n"
    yield "| field | value | without it | meaning |"
    yield "| --- | --- | --- | --- |"
    for field, definition in type_["properties"].items():
        if definition == {"description": IGNORED}:
            continue
        default = "required" if field in type_.get("required", ()) else _default(definition)
        yield f"| `{field}` | {_value(definition)} | {default} | {definition['description']} |"


def _default(definition: dict[str, Any]) -> str:
    return (
        f"`{json.dumps(definition['default'])}`"
        if definition.get("default") not in (None, [])
        else "–"
    )


def _value(definition: dict[str, Any]) -> str:  # noqa: PLR0911  # one line for each form
    if reference := re.search(r"#/\$defs/(\w+)", json.dumps(definition.get("$ref", ""))):
        return f"[{reference[1]}](#{reference[1].removesuffix('Document').lower()})"
    if each := definition.get("anyOf"):
        return ", or ".join(dict.fromkeys(map(_value, each)))
    if "enum" in definition:
        return " or ".join(f"`{value}`" for value in definition["enum"])
    if values := definition.get("additionalProperties"):
        return f"object of {_value(values)}"
    if definition.get("type") == "array":
        return f"list of {_value(definition['items'])}"
    if definition.get("type") == "integer":
        refused = definition.get("not", {}).get("enum", [])
        but = f", not {' or '.join(map(str, refused))}" if refused else ""
        return f"{definition['minimum']}–{definition['maximum']}{but}"
    if "format" in definition:
        return {"ipv4": "IPv4 address", "ipv6": "IPv6 address"}[definition["format"]]
    if "pattern" in definition:
        return f"`{definition['pattern']}`".replace("|", "\\|")
    if "minLength" in definition:
        return f"{definition['minLength']}–{definition['maxLength']} characters"
    plain = {"boolean": "`true` or `false`", "object": "object", "string": "text"}
    return plain[definition["type"]]


def test_reference_of_the_payload(pytestconfig: pytest.Config) -> None:
    """docs/payload.md has the schema's fields, values and defaults, and no others."""
    page = REPO / "docs/payload.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest, f"{BEGIN} is not there"
    expected = f"{before}{BEGIN}\n{reference()}\n\n{END}{after}"
    if pytestconfig.getoption("--snapshot-update"):
        page.write_text(expected)
    assert page.read_text() == expected, "--snapshot-update writes it"
