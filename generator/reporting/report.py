"""Reports a run to the journal and, if configured, to Prometheus and to the controller.

A report can't make a run fail, or delay it for longer than `http.REPORT_TIMEOUT`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from generator.controller.config import Config, expand
from generator.errors import EvpnHostError, Refused, Unreachable
from generator.reporting import journal, metrics, status
from generator.state import files

_PRIORITY = {
    "unchanged": journal.DEBUG,
    "changed": journal.NOTICE,
    "unreachable": journal.WARNING,
    "refused": journal.ERROR,
    "failed": journal.ERROR,
    "stranded": journal.CRITICAL,
}
_WORDS = {
    "unreachable": "the controller gives no payload, the host stays as it is",
    "refused": "refused, nothing was changed",
    "failed": "activation failed, the previous generation is active",
    "stranded": "activation failed and so did going back, a person is needed",
}


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of an apply."""

    host: str
    generation: int
    changed: list[str] = []
    kept: list[str] = []
    repaired: list[str] = []
    activated: bool = False
    devices: int = 0  # how many the host should have
    summary: list[str] = []  # the changes in network terms
    left_alone: str = ""  # why the payload was not applied


class Run(msgspec.Struct):
    """The facts of a run that its report needs."""

    outcome: Outcome | None = None
    message: str = ""  # for the journal, instead of the outcome's own
    unreachable: Unreachable | None = None  # why the last good payload was applied

    def use_last_good(self, unreachable: Unreachable, say: Callable[[str], None]) -> None:
        """Note and say that the run goes on with the last good payload."""
        self.unreachable = unreachable
        if not journal.is_stderr():  # the journal gets a message with fields later
            say(f"warning: going on with the last good payload: {unreachable}")


@contextlib.contextmanager
def reported(
    settings: Config, host: str, say: Callable[[str], None], *, activates: bool
) -> Iterator[Run]:
    """Report the run in the block, however it ends, unless it activates nothing."""
    run = Run()
    if not activates:
        yield run
        return
    failure: EvpnHostError | None = None
    good = False
    try:
        yield run
        good = run.unreachable is None
    except EvpnHostError as error:
        failure = error
        error.reported = journal.is_stderr()
        raise
    except OSError as error:
        failure = Refused(str(error))
        raise
    finally:
        _journal(run, failure or run.unreachable)
        try:
            _publish(settings, host, good=good)
        except (EvpnHostError, OSError) as error:
            say(f"warning: not reported: {error}")


def forget(settings: Config, root: Path) -> None:
    """Remove the metrics, because nothing updates them after an uninstall."""
    if settings.metrics:
        files.remove(root, settings.metrics.lstrip("/"))


def _journal(run: Run, failure: EvpnHostError | None) -> None:
    done = run.outcome
    fields: dict[str, object] = {}
    if done:
        fields = {
            "EVPN_HOST_NAME": done.host,
            "EVPN_HOST_GENERATION": done.generation,
            "EVPN_HOST_DEVICES": done.devices,
            "EVPN_HOST_FILES": len(done.changed),
            "EVPN_HOST_FILES_CHANGED": "\n".join(f"/{path}" for path in done.changed),
        }
    if failure:
        outcome = failure.outcome
        message = f"{_WORDS[outcome]}: {'; '.join(map(str, failure.problems))}"
    elif done:
        outcome = "changed" if done.changed or done.repaired else "unchanged"
        count = f"{len(done.changed)} file{'s' if len(done.changed) != 1 else ''} changed"
        applied = f"applied: {count}, {done.devices} devices"
        result = applied if outcome == "changed" else "is unchanged"
        message = (
            run.message or done.left_alone or f"{done.host}: generation {done.generation} {result}"
        )
    else:
        return  # a signal stopped the run: systemd reports that
    journal.send(message, _PRIORITY[outcome], fields | {"EVPN_HOST_OUTCOME": outcome})


def _publish(settings: Config, host: str, *, good: bool) -> None:
    """Write the metrics and send the status, if the operator has configured that."""
    if not (settings.metrics or settings.report):
        return
    root = Path("/")
    current = status.status(root)
    if settings.metrics:
        metrics.write(root, settings.metrics.lstrip("/"), current, time.time(), good=good)
    if settings.report:
        from generator.controller.http import Access  # noqa: PLC0415  # a slow import

        url = expand(settings.report, host)
        Access(settings, root, host).report(url, msgspec.json.encode(current))
