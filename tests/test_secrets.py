"""No password leaves the process: not by a native tool's output, a diff, a message or a URL."""

import pytest

from generator import secrets
from generator.activation import commands
from generator.activation.commands import Step
from generator.errors import ActivationFailed, Refused
from generator.state import changes
from generator.state.changes import Change
from tests.strategies import host, refusals, server

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
    """FRR's tools print the line that they refuse."""
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
    """Whatever form a line with a password has."""
    before, after = (f"router bgp 1\n{text}\n" for text in (line, " bgp router-id 10.0.0.1"))
    shown = "\n".join(changes.diff([Change("etc/frr/frr.conf", before, after)]))
    assert "hunter2" not in shown
    assert "(not shown)" in shown


def test_known_secrets_are_masked_everywhere() -> None:
    """A secret that was read is masked in errors, whatever stands around it."""
    secrets.know("hunter2", "ab", None)
    secrets.know_those_of_frr(" neighbor x password tr0ub4dor\n")
    text = str(Refused("said hunter2, tr0ub4dor and ab"))
    assert text == "said (not shown), (not shown) and ab"


@pytest.mark.parametrize("url", ["https://user:hunter2@there/x", "http://hunter2@there"])
def test_a_url_shows_no_login(url: str) -> None:
    """Its user may be a token."""
    assert "hunter2" not in str(Refused(f"{url}: is not a URL"))
    assert "there" in str(Refused(f"{url}: is not a URL"))


def test_a_bad_password_is_not_shown() -> None:
    """The message names the place and the rule alone."""
    [problem] = refusals(host(server=server(bgp={"password": "hunter2 has spaces"})))
    assert problem.startswith("server.bgp.password: (not shown) is not 1–80 printable")
