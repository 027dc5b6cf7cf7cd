"""Reports a run to the journal, and if the operator wants it to Prometheus and to the controller.

No report can make a run fail, or keep it waiting for longer than `http.REPORT_TIMEOUT`.
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
    "failed": "activation failed, the generation before is active",
    "stranded": "activation failed and so did going back, a person is needed",
}


class Outcome(msgspec.Struct, frozen=True):
    """What an apply did."""

    host: str
    generation: int
    changed: list[str] = []
    kept: list[str] = []
    mended: list[str] = []
    activated: bool = False
    devices: int = 0  # that the host has by it


class Run(msgspec.Struct):
    """What is known of a run by its end."""

    outcome: Outcome | None = None
    message: str = ""  # for the journal, in place of what the outcome says
    missed: Unreachable | None = None  # why the last good payload was applied

    def go_on_without(self, missed: Unreachable, say: Callable[[str], None]) -> None:
        """Go on with the last good payload, without the controller."""
        self.missed = missed
        if not journal.is_stderr():  # which gets it with fields
            say(f"warning: the last good payload has to do: {missed}")


@contextlib.contextmanager
def reported(
    settings: Config, host: str, say: Callable[[str], None], *, activates: bool
) -> Iterator[Run]:
    """Report the run that happens inside, however it ends; nobody hears of one on a mere tree."""
    run = Run()
    if not activates:
        yield run
        return
    failure: EvpnHostError | None = None
    good = False
    try:
        yield run
        good = run.missed is None
    except EvpnHostError as error:
        failure = error
        error.reported = journal.is_stderr()
        raise
    except OSError as error:
        failure = Refused(str(error))
        raise
    finally:
        _journal(run, failure or run.missed)
        try:
            _publish(settings, host, good=good)
        except (EvpnHostError, OSError) as error:
            say(f"warning: not reported: {error}")


def forget(settings: Config, root: Path) -> None:
    """Remove the metrics: after an uninstall nobody brings them up to date."""
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
        outcome = "changed" if done.changed or done.mended else "unchanged"
        count = f"{len(done.changed)} file{'s' if len(done.changed) != 1 else ''} changed"
        what = f"applied: {count}, {done.devices} devices" if outcome == "changed" else "stands"
        message = run.message or f"{done.host}: generation {done.generation} {what}"
    else:
        return  # stopped by a signal: systemd says so
    journal.send(message, _PRIORITY[outcome], fields | {"EVPN_HOST_OUTCOME": outcome})


def _publish(settings: Config, host: str, *, good: bool) -> None:
    """Write the metrics and send the status, where the operator asked for it."""
    if not (settings.metrics or settings.report):
        return
    root = Path("/")
    current = status.status(root)
    if settings.metrics:
        metrics.write(root, settings.metrics.lstrip("/"), current, time.time(), good=good)
    if settings.report:
        from generator.controller.http import Access  # noqa: PLC0415  # only who has one pays for it

        url = expand(settings.report, host)
        Access(settings, root, host).report(url, msgspec.json.encode(current))
