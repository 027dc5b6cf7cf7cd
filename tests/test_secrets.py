"""No password leaves the process: not by a native tool's output, a diff, a message or a URL."""

from pathlib import Path

import msgspec
import pytest

from generator import secrets
from generator.activation import commands, converge, staging
from generator.activation.commands import Step
from generator.errors import ActivationFailed, Refused, Stranded
from generator.reporting import status
from generator.state import changes, record
from generator.state.changes import Change
from generator.verbs import apply, rollback, uninstall
from generator.verbs.options import Options
from tests.strategies import encoded, host, refusals, server

LINES = [
    " neighbor ens4 password hunter2",
    " neighbor ens4 password hunter2 ",
    " neighbor ens4 password\thunter2",
    " neighbor ens4 password 8 hunter2",
    " neighbor ens4 password hunter2 and more",
    " ip ospf message-digest-key 1 md5 hunter2",
    "  key-string hunter2",
]


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each test begin without known secrets."""
    monkeypatch.setattr(secrets, "_known", set())


@pytest.mark.parametrize("line", LINES)
def test_a_tool_repeats_a_line(line: str) -> None:
    """A tool's message is masked: FRR's tools print the line that they refuse."""
    step = Step(("sh", "-c", 'printf "line 12: %s\\n" "$1"; exit 1', "-", line), "a check")
    with pytest.raises(ActivationFailed) as failure:
        commands.run(step, commands.silent)
    assert "hunter2" not in str(failure.value)
    assert "line 12" in str(failure.value)


def test_a_message_about_a_key_is_shown() -> None:
    """netplan's and networkd's messages name the key that they do not know."""
    for message in ("unknown key 'renderrer'", "Unknown key 'Learnign' in section [Bridge]"):
        assert secrets.mask_frr(message) == message


@pytest.mark.parametrize("line", LINES)
def test_a_diff_masks_each_form(line: str) -> None:
    """A diff masks each form of a line with a password."""
    before, after = (f"router bgp 1\n{text}\n" for text in (line, " bgp router-id 10.0.0.1"))
    shown = "\n".join(changes.diff([Change("etc/frr/frr.conf", before, after)]))
    assert "hunter2" not in shown
    assert "(not shown)" in shown


def test_known_secrets_are_masked_everywhere() -> None:
    """A secret that was read is masked in errors, whatever stands around it."""
    secrets.remember("hunter2", "ab", None)
    secrets.remember_in_frr(" neighbor x password tr0ub4dor\n")
    text = str(Refused("said hunter2, tr0ub4dor and ab"))
    assert text == "said (not shown), (not shown) and ab"


@pytest.mark.parametrize("url", ["https://user:hunter2@there/x", "http://hunter2@there"])
def test_a_url_shows_no_login(url: str) -> None:
    """A URL is shown without its login: the user may be a token."""
    assert "hunter2" not in str(Refused(f"{url}: is not a URL"))
    assert "there" in str(Refused(f"{url}: is not a URL"))


def test_a_bad_password_is_not_shown() -> None:
    """The message names the place and the rule alone."""
    [problem] = refusals(host(server=server(bgp={"password": "hunter2 has spaces"})))
    assert problem.startswith("server.bgp.password: (not shown) is not 1–80 printable")


def test_the_name_of_a_key_chain_is_no_secret() -> None:
    """The name of a key chain is shown; a line that begins like one is masked."""
    secrets.remember_in_frr("key chain FABRIC\n key 1\n  key-string hunter2\n")
    assert secrets.mask("route-map FABRIC has hunter2") == "route-map FABRIC has (not shown)"
    assert "hunter2" not in secrets.mask_frr(" neighbor x password chain hunter2")


OLD, NEW, LOCAL, OPERATORS = "old-hunter1", "'new-hunter2", "local-hunter3", "kept-hunter4"
"""The passwords of two generations, of frr.conf.local, and of the frr.conf before us."""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Return options for a folder on which two generations were applied; no secret is known."""
    frr = tmp_path / "etc/frr"
    frr.mkdir(parents=True)
    (frr / "frr.conf").write_text(f"router bgp 1\n neighbor x password {OPERATORS}\n")
    monkeypatch.setattr(commands, "run", lambda *_: "")
    monkeypatch.setattr(converge, "converge", lambda *_: [])
    monkeypatch.setattr("generator.verbs.preflight.look", lambda *_: [])
    options = Options(root=tmp_path, backend="ifupdown", replace_frr=True)
    for generation, password in enumerate((OLD, NEW), start=1):
        document = host(server=server(bgp={"password": password}), generation=generation)
        apply.apply(encoded(document), options, commands.silent, commands.silent)
    (frr / "frr.conf.local").write_text(f"key chain X\n key 1\n  key-string {LOCAL}\n")
    secrets._known.clear()
    return options


def _tells(*_: object) -> None:
    """Fail as a native tool that repeats lines of its files."""
    raise ActivationFailed(f"vtysh: line 5: {OLD} {NEW} {LOCAL} {OPERATORS}")


@pytest.mark.parametrize("at", ["check", "converge"])
def test_rollback_knows_the_secrets_of_its_files(
    options: Options, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """rollback masks secrets of the old files, of the current ones, and of frr.conf.local."""
    where = {"check": staging, "converge": converge}[at]
    monkeypatch.setattr(where, at, _tells)
    with pytest.raises((ActivationFailed, Stranded)) as failed:
        rollback.rollback(None, options, commands.silent, commands.silent)
    assert f"line 5: {3 * '(not shown) '}{OPERATORS}" in str(failed.value)


def test_uninstall_knows_the_secrets_of_its_files(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uninstall masks secrets of our file, and of the operator's file that comes back."""
    monkeypatch.setattr(converge, "withdraw", _tells)
    with pytest.raises(Stranded) as failed:
        uninstall.uninstall(options, commands.silent, commands.silent)
    assert NEW not in str(failed.value)
    assert OPERATORS not in str(failed.value)


def test_status_knows_the_secrets_of_its_files(options: Options) -> None:
    """status masks secrets: an older record may have a tool's line with a password."""
    applied = record.read(options.root)
    assert applied
    detail = f"vtysh: line 5: password {NEW}"
    record.write(options.root, msgspec.structs.replace(applied, ok=False, detail=detail))
    current = status.status(options.root)
    assert current.detail == "vtysh: line 5: password (not shown)"
    assert NEW not in str(current.differences)
