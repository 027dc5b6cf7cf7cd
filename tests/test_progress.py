"""What takes longer than two seconds says what it is doing."""

import io
import sys
import time
from collections.abc import Callable

import pytest

from generator.verbs import progress
from generator.verbs.progress import Progress, counted


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets seconds pass. No thread looks meanwhile."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Progress, "_follow", lambda _: None)

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_says_nothing_of_what_is_quick(pass_time: Callable[[float], None]) -> None:
    stream = io.StringIO()
    steps = Progress(stream)
    steps("netplan apply  # netplan takes up the files")
    pass_time(1.9)
    steps("ip link  # devices that go")
    assert stream.getvalue() == ""


def test_a_line_for_each_step(pass_time: Callable[[float], None]) -> None:
    """Each step is a line; a step that comes twice in a row is one line."""
    stream = io.StringIO()
    steps = Progress(stream)
    steps("netplan apply  # netplan takes up the files")
    pass_time(2.5)
    steps("ping -c 1 10.0.0.1  # whether it can be reached")
    steps("ping -c 1 10.0.0.2  # whether it can be reached")
    steps("# the devices come up")
    assert stream.getvalue() == "whether it can be reached …\nthe devices come up …\n"


def test_one_line_on_a_terminal(pass_time: Callable[[float], None]) -> None:
    """A terminal has one line with the step's number and seconds; messages replace it."""
    stream = Terminal()
    steps = Progress(stream)
    steps("netplan generate  # netplan reads the files")
    steps("netplan apply  # netplan takes up the files")
    pass_time(3.2)
    steps._show()
    assert stream.getvalue() == "\r\x1b[2K[2] netplan takes up the files, 3 s"
    steps.clear()
    steps.clear()
    assert stream.getvalue().count("\r\x1b[2K") == 2
    steps.close()
    steps("ip link  # devices that go")
    assert "devices that go" not in stream.getvalue()


def test_a_step_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long step is named while it runs, not when the next one begins."""
    monkeypatch.setattr(progress, "_QUIET", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)
    stream = io.StringIO()
    steps = Progress(stream)
    monkeypatch.setattr(steps, "_begun", time.monotonic() + 0.2)
    steps("netplan apply  # netplan takes up the files")
    assert stream.getvalue() == ""
    end = time.monotonic() + 30
    while not stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    steps.close()
    assert stream.getvalue() == "netplan takes up the files …\n"


@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_counts_nothing_that_is_quick(
    seconds: float, pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick work is not counted, neither on a terminal nor elsewhere."""
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with counted(3, "the files are written") as advance:
            for _ in range(3):
                pass_time(seconds)
                advance(1)
        assert stream.getvalue() == ""


def test_counts_on_a_terminal(
    pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two seconds a bar counts all work since the begin."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with counted(1000, "the files are written") as advance:
        advance(250)
        pass_time(2.5)
        advance(250)
        shown = stream.getvalue()
        assert "500/1000" in shown
        assert "the files are written" in shown
        advance(500)
    assert "1000/1000" in stream.getvalue()


def test_counts_in_one_line_elsewhere(
    pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with counted(3, "the files are written") as advance:
        for _ in range(3):
            pass_time(2.5)
            advance(1)
    assert stream.getvalue() == "the files are written …\n"
