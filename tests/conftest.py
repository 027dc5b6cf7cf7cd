"""What all tests share: the lists of payloads, the command, and the rule for tests that need root.

The command accepts the payloads in `tests/payloads` and `examples`, and refuses
`tests/payloads/refused/*`. A test with an argument `accepted`, `refused` or `backend` runs once for
each of them.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NoReturn

import pytest

REPO = Path(__file__).parents[1]
sys.path.append(str(REPO))  # for `lab` and `tests`, which are not installed

from generator.activation import before, commands, converge, netplan  # noqa: E402
from generator.cli import main  # noqa: E402
from generator.verbs import apply as applying  # noqa: E402
from generator.verbs import preflight  # noqa: E402
from lab.result import LabUnavailable, Result  # noqa: E402
from tests import profiles  # noqa: E402

# They are named here so that their options are known, and so that they also run in the process that
# collects the results of all others.
pytest_plugins = ["tests.lab.systems", "tests.lab.claims", "tests.second_try"]

ACCEPTED = sorted(
    path
    for folder in ("examples", "tests/payloads")
    for suffix in ("json", "yaml")
    for path in (REPO / folder).glob(f"*.{suffix}")
)
REFUSED = sorted((REPO / "tests/payloads/refused").glob("*"))
BACKENDS = ("netplan", "ifupdown")
LONG_WEIGHT = 25
"""A test that is marked `long` counts as this many tests."""


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples the random tests try."""
    profiles.choose(long=bool(config.getoption("all_of_it", False)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, object, object]:
    """Keep the tests of a module that use a distribution's tree in one process.

    So each tree is made once. Groups with many tests and tests marked `long` begin first: they run
    beside the first labs, which mostly wait. Otherwise one process would still be busy with them
    when all others have finished.
    """
    for item in items:
        if {"root", "root_user"} <= set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    result = yield
    groups = {item: _group(item) for item in items}
    weights = Counter(groups.values())
    long = (groups[item] for item in items if item.get_closest_marker("long"))
    weights |= Counter(dict.fromkeys(long, LONG_WEIGHT))
    items.sort(key=lambda item: weights[groups[item]], reverse=True)
    return result


def _group(item: pytest.Item) -> str:
    """Return the name of the group that shares a process with a test; most tests are alone."""
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else item.nodeid


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each payload and for each backend that it takes as an argument."""
    for name, values in (("accepted", ACCEPTED), ("refused", REFUSED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=[path.stem for path in values])
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS)


@pytest.fixture(scope="session")
def cases() -> list[Path]:
    """Return every accepted payload, for a test that looks at all of them together."""
    return ACCEPTED


@pytest.fixture
def evpn_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run the command in this process: from arguments to exit code, standard output and error."""

    def run(*argv: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["evpn-host", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        output = capsys.readouterr()
        return Result(int(end.value.code or 0), output.out, output.err)

    return run


@pytest.fixture
def folder_as_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder on which verbs act as on a host: no command runs, no device is looked at."""
    monkeypatch.setattr(commands, "run", lambda *_: "")
    monkeypatch.setattr(converge, "converge", lambda *_: [])
    monkeypatch.setattr(converge, "withdraw", lambda *_: None)
    monkeypatch.setattr(before, "restore", lambda *_: None)
    monkeypatch.setattr(applying, "_as_planned", lambda *_: True)
    monkeypatch.setattr(preflight, "look", lambda *_: [])
    monkeypatch.setattr(netplan, "GENERATORS", ("/bin/true",))
    return tmp_path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Skip a test whose fixtures need what this machine can't run: a root tree, or the lab."""
    try:
        return (yield)
    except LabUnavailable as reason:
        unavailable(str(reason))


pytest_runtest_call = pytest_runtest_setup


def unavailable(reason: str) -> NoReturn:
    """Skip a test that this machine can't run, visibly; where the lab is required, fail."""
    if os.environ.get("EVPN_HOST_LAB") == "required":
        pytest.fail(f"EVPN_HOST_LAB=required, but {reason}")
    pytest.skip(reason)


def in_namespace(*words: str) -> str:
    """Run a command in a new network namespace; return its output. `words` follow `unshare`."""
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    if probe.returncode:
        unavailable(f"no network namespace: {probe.stderr.decode().strip()}")
    argv = ["unshare", "--net", *words]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=REPO)
    assert not result.returncode, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def root_user() -> None:
    """Skip a test that needs namespaces or a root tree of its own, unless root runs it."""
    if os.geteuid() != 0:
        unavailable("needs root")
