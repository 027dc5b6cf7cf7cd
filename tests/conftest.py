"""What all tests share: the payloads by glob, the command, and the rule for tests that need root.

`tests/payloads/*.json` and `examples/*.json` are accepted, `tests/payloads/refused/*` are not. A
test that takes `accepted`, `refused` or `backend` runs for each.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NoReturn

import pytest

REPO = Path(__file__).parents[1]
sys.path.append(str(REPO))  # for `lab` and `tests`, which are not installed

from generator.cli import main  # noqa: E402
from lab.result import Result  # noqa: E402
from tests import profiles  # noqa: E402

# Here, for their options, and for the process that collects from all others.
pytest_plugins = ["tests.lab.systems", "tests.lab.claims", "tests.second_try"]

ACCEPTED = sorted([*(REPO / "examples").glob("*.json"), *(REPO / "tests/payloads").glob("*.json")])
REFUSED = sorted((REPO / "tests/payloads/refused").glob("*"))
BACKENDS = ("netplan", "ifupdown")
AS_MANY = 25
"""As how many tests one that is marked `long` counts."""


def pytest_configure(config: pytest.Config) -> None:
    """Have the random tests try a little, or much."""
    profiles.choose(long=bool(config.getoption("all_of_it", False)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, object, object]:
    """Have what runs in a distribution's tree stay in one process, module by module.

    So each tree is made once. And what is many or marked `long` begins first: it runs beside the
    first labs, which wait much, and no process is left with it when the others have done all.
    """
    for item in items:
        if {"root", "root_user"} <= set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    result = yield
    groups = {item: _group(item) for item in items}
    weights = Counter(groups.values())
    long = (groups[item] for item in items if item.get_closest_marker("long"))
    weights |= Counter(dict.fromkeys(long, AS_MANY))
    items.sort(key=lambda item: weights[groups[item]], reverse=True)
    return result


def _group(item: pytest.Item) -> str:
    """What it shares a process with, under a name; most tests are alone."""
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else item.nodeid


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for each payload, and for each backend, where it asks for one."""
    for name, values in (("accepted", ACCEPTED), ("refused", REFUSED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=[path.stem for path in values])
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS)


@pytest.fixture(scope="session")
def cases() -> list[Path]:
    """Every accepted payload, for a test that looks at them together."""
    return ACCEPTED


@pytest.fixture
def evpn_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The command, run in this process: arguments to exit code, standard output and error."""

    def run(*argv: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["evpn-host", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Result(int(ended.value.code or 0), said.out, said.err)

    return run


def unavailable(reason: str) -> NoReturn:
    """Skip a test that this machine can't run, visibly; where the lab is required, fail."""
    if os.environ.get("EVPN_HOST_LAB") == "required":
        pytest.fail(f"EVPN_HOST_LAB=required, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def root_user() -> None:
    """Tests that need namespaces or another root."""
    if os.geteuid() != 0:
        unavailable("needs root")
