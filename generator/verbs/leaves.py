"""`evpn-host leaves`: a folder with the configuration of each leaf for its host ports."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator.controller import source
from generator.desired.payload import Payload
from generator.desired.payload.leaves import Leaves, Switch, switches
from generator.desired.render import render_leaf
from generator.errors import Problem, Refused, printable
from generator.state.rendered import Counts
from generator.verbs import render
from generator.verbs.render import Hosts


class Done(msgspec.Struct, frozen=True):
    """All that `leaves --json` says."""

    leaves: Hosts
    files: Counts
    warnings: list[str]


def read_switches(path: str | None) -> dict[str, Switch]:
    """Return the switches in a file, none without a file. Raises `Refused`."""
    if path is None:
        return {}
    data = source.local(path)
    try:
        return switches(data)
    except Refused as refused:
        # Messages of the payload's decoder say "the payload".
        problems = [each._replace(rule=_of_file(each.rule, path)) for each in refused.problems]
        raise Refused(*(_in_file(each, path) for each in problems)) from None


def _of_file(rule: str, path: str) -> str:
    return rule.replace("the payload", printable(path, 200))


def _in_file(problem: Problem, path: str) -> Problem:
    return problem._replace(whose=printable(path, 200)) if problem.place else problem


def leaves(payload: Payload, known_switches: dict[str, Switch], output: Path) -> Done:
    """Make a folder exactly the files of a payload's leaves. Raises `Refused` or `OSError`."""
    fabric = Leaves(payload, known_switches)

    def texts(name: str) -> dict[str, str]:
        return render_leaf(fabric.leaf(name))

    done, files = render.bring(output, fabric.names, texts)
    return Done(done, files, list(fabric.warnings))


def lines(done: Done) -> Iterator[str]:
    """Yield a line for each leaf that changed, then the counts."""
    yield from render.lines_of("leaves", done.leaves, done.files)
