"""The pages: built without the network, in step with the command, and what they show works.

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
from generator.payload.schema import IGNORED, schema
from tests import documents
from tests.documents import PAGES, REPO, Block

LANGUAGES = {"sh", "text", "yaml", "json", "python", "ini", "xml"}
BEGIN, END = "<!-- reference: from the schema, by tests/test_docs.py -->", "<!-- /reference -->"


# --- The site ---


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly, where there is no network at all."""
    folder = tmp_path_factory.mktemp("site")
    done = build(REPO, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def build(repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository's pages, as docs/contributing.md says it."""
    # Without --quiet, which hides warnings from --strict too.
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    possible = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    alone = [] if possible.returncode else ["unshare", "--net"]
    return subprocess.run(
        [*alone, *argv], cwd=repository, capture_output=True, text=True, check=False
    )


def test_faults_end_the_build(tmp_path: Path) -> None:
    """Links to no page and to no heading, a page that nothing leads to: mkdocs only warns."""
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    shutil.copy(REPO / "mkdocs.yml", tmp_path)
    (tmp_path / "docs/lost.md").write_text("[No page](no.md), [no heading](index.md#no)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "Aborted with 3 warnings" in done.stdout, done.stdout + done.stderr


def tables() -> Iterator[tuple[str, list[str]]]:
    """Every table of every page: from its headings to the first empty line or comment."""
    for page in PAGES:
        text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for table in re.findall(r"^\|.*\n(?:(?!<!--).+\n)*", text, re.MULTILINE):
            yield page.name, table.splitlines()


def test_tables_are_whole() -> None:
    """Each row is one line with as many cells as its table has columns, and no code is cut."""
    found = list(tables())
    assert len(found) > 30
    for page, lines in found:
        columns = len(_cells(lines[0]))
        for line in lines:
            assert re.fullmatch(r"\|.*(?<!\\)\|", line), f"{page}: {line}"
            assert len(_cells(line)) == columns, f"{page}: {line}"
            assert all(cell.count("`") % 2 == 0 for cell in _cells(line)), f"{page}: {line}"


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


# Where a style sheet has a browser fetch something; what is in the sheet itself is not fetched.
_OF_A_STYLE = re.compile(r"""url\(\s*["']?(?!data:)([^"')]+)|@import\s*["']([^"']+)""")


class _Addresses(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = [(name, value) for name, value in attrs if value]
        for name, value in given:
            if name in {"src", "poster", "data"} or (name == "href" and tag in {"link", "image"}):
                self.fetched.append(value)
            elif name == "srcset":
                self.fetched += [each.split()[0] for each in value.split(",")]
            elif name == "style":
                self.handle_data(value)

    def handle_data(self, data: str) -> None:
        self.fetched += [a or b for a, b in _OF_A_STYLE.findall(data)]


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    """No font, script or picture of somebody else's; what a page needs is there."""
    pages = sorted([*site.rglob("*.html"), *site.rglob("*.css")])
    assert len(pages) > 10
    for page in pages:
        found = _Addresses()
        if page.suffix == ".css":
            found.handle_data(page.read_text())
        else:
            found.feed(page.read_text())
            assert found.fetched
        for address in found.fetched:
            assert "//" not in address, f"{page}: {address}"
            file = address.partition("#")[0].partition("?")[0]
            folder = site if file.startswith("/") else page.parent
            assert (folder / file.removeprefix("/")).exists(), f"{page}: {address}"


def test_links_to_files_lead_somewhere() -> None:
    """Also those that the site only names, because they lead out of docs/."""
    found = 0
    for page in [*PAGES, REPO / "CHANGELOG.md"]:
        text = re.sub(r"`[^`]*`", "", page.read_text())
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            found += 1
    assert found > 30


# --- What is shown is run ---


def test_each_block_has_a_language() -> None:
    """`sh` for what is run, `text` for what is seen: nothing is shown that no test looks at."""
    wrong = [
        f"{block.page}:{block.line}: {block.language or 'no language'}"
        for block in documents.blocks()
        if block.language not in LANGUAGES
    ]
    assert wrong == [], f"not one of {', '.join(sorted(LANGUAGES))}"


def test_what_is_not_run() -> None:
    """What is on the list is shown somewhere; the tests that do the same are there."""
    seen = [
        c
        for block in documents.blocks()
        if block.language == "sh"
        for c in documents.commands(block)
    ]
    for command, reason in documents.NOT_RUN.items():
        assert any(c == command or c.startswith(f"{command} ") for c in seen), command
        for file, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", reason):
            assert not name or f"def {name}(" in (REPO / file).read_text(), reason
            assert (REPO / file).exists(), reason


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which commands may do what they like."""
    folder = tmp_path_factory.mktemp("copy") / "evpn-host"
    # Without Git: the files, less what was made from them.
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", ".*_cache", "site", ".hypothesis"
    )
    shutil.copytree(REPO, folder, symlinks=True, ignore=left_out)
    for example in (folder / "examples").glob("*.json"):
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
def test_commands(block: Block, copy: Path) -> None:
    """Each block does in a copy of the repository what a reader would have it do."""
    skipped = [command for command in documents.commands(block) if documents.not_run(command)]
    assert not skipped, "of one block all or nothing is run"
    path = [str(copy / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    possible = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    alone = [] if possible.returncode else ["unshare", "--net"]
    with subprocess.Popen(
        [*alone, "bash", "-euo", "pipefail", "-c", block.text],
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
                os.killpg(process.pid, signal.SIGKILL)  # what it left running
        assert process.stdout
        assert process.returncode == 0, process.stdout.read()


def spans() -> Iterator[tuple[str, list[str]]]:
    """Every command of ours in running text, with its page."""
    for page in PAGES:
        text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`(?:sudo )?(evpn-host\s[^`]+)`", text):
            yield page.name, shlex.split(span.replace("\\|", "|").partition(" | ")[0])


def test_commands_in_running_text() -> None:
    """They name verbs and options that there are."""
    found = list(spans())
    assert len(found) > 10
    for page, (_, verb, *words) in found:
        if verb == "--version":
            continue
        assert verb in cli.commands, f"{page}: evpn-host {verb}"
        known = options(cli.commands[verb])
        given = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert given <= known, f"{page}: evpn-host {verb} {' '.join(words)}"


def options(command: click.Command) -> set[str]:
    """The options of a verb, as they are typed."""
    return {name for option in command.params for name in option.opts if name.startswith("-")}


def told_of_verbs() -> dict[str, set[str]]:
    """The verbs of docs/contract.md, and the options that their rows name."""
    told: dict[str, set[str]] = {}
    verb = ""
    table = (REPO / "docs/contract.md").read_text().partition("## Verbs")[2].partition("\n## ")[0]
    for first, row in re.findall(r"^\| (`[a-z]\S*|…)(.*)$", table, re.MULTILINE):
        if first != "…":
            verb = first.strip("`")
        spans = re.findall(r"`([^`]*)`", first + row)
        words = {word for span in spans for word in span.split() if word.startswith("-")}
        told.setdefault(verb, set()).update(words)
    return told


def test_the_contract_has_every_verb_and_option() -> None:
    """docs/contract.md names them all, and no others."""
    told = told_of_verbs()
    assert told.keys() == cli.commands.keys()
    common = {"--root", "-v", "--verbose"}  # told once, for all
    for verb, words in told.items():
        assert words <= options(cli.commands[verb]), verb
        missing = [
            option.opts
            for option in cli.commands[verb].params
            if isinstance(option, click.Option) and not set(option.opts) & (words | common)
        ]
        assert missing == [], verb


# --- The reference of the payload ---


def reference() -> str:
    """The schema as tables, in the order in which a reader meets the objects."""
    types = schema()["$defs"]
    order = ["HostDocument"]
    for name in order:
        found = re.findall(r"#/\$defs/(\w+)", json.dumps(types[name]))
        order += [each for each in dict.fromkeys(found) if each not in order]
    order += [name for name in types if name not in order]
    return "\n".join(line for name in order for line in _table(name, types[name]))


def _table(name: str, type_: dict[str, Any]) -> Iterator[str]:
    yield f"\n### {name.removesuffix('Document')}\n"
    yield f"{type_['description']}\n"
    yield "| field | value | without it | meaning |"
    yield "| --- | --- | --- | --- |"
    for field, said in type_["properties"].items():
        if said == {"description": IGNORED}:
            continue
        needed = "required" if field in type_.get("required", ()) else _default(said)
        yield f"| `{field}` | {_value(said)} | {needed} | {said['description']} |"


def _default(said: dict[str, Any]) -> str:
    return f"`{json.dumps(said['default'])}`" if said.get("default") not in (None, []) else "–"


def _value(said: dict[str, Any]) -> str:  # noqa: PLR0911  # a form a line
    if reference := re.search(r"#/\$defs/(\w+)", json.dumps(said.get("$ref", ""))):
        return f"[{reference[1]}](#{reference[1].removesuffix('Document').lower()})"
    if each := said.get("anyOf"):
        return ", or ".join(dict.fromkeys(map(_value, each)))
    if "enum" in said:
        return " or ".join(f"`{value}`" for value in said["enum"])
    if said.get("type") == "array":
        return f"list of {_value(said['items'])}"
    if said.get("type") == "integer":
        refused = said.get("not", {}).get("enum", [])
        but = f", not {' or '.join(map(str, refused))}" if refused else ""
        return f"{said['minimum']}–{said['maximum']}{but}"
    if "format" in said:
        return {"ipv4": "IPv4 address", "ipv6": "IPv6 address"}[said["format"]]
    if "pattern" in said:
        return f"`{said['pattern']}`".replace("|", "\\|")
    if "minLength" in said:
        return f"{said['minLength']}–{said['maxLength']} characters"
    return {"boolean": "`true` or `false`", "object": "object"}[said["type"]]


def test_reference_of_the_payload(pytestconfig: pytest.Config) -> None:
    """docs/payload.md has the schema's fields, values and defaults, and no other."""
    page = REPO / "docs/payload.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest, f"{BEGIN} is not there"
    wanted = f"{before}{BEGIN}\n{reference()}\n\n{END}{after}"
    if pytestconfig.getoption("--snapshot-update"):
        page.write_text(wanted)
    assert page.read_text() == wanted, "--snapshot-update writes it"
