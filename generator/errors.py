"""The errors of evpn-host. Each says what is wrong, where, why, and what to do."""

from collections.abc import Iterable
from typing import NamedTuple

from generator.secrets import mask

_LONGEST_NAME = 64  # no longer name is compared: the work grows with the square of its length


def printable(value: object, limit: int = 80) -> str:
    """Return text from outside, safe for a terminal: one short line without control characters."""
    text = value if isinstance(value, str) else _json(value)
    text = text[: limit + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[:limit] + "…"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a hint with the known name that is most like `name`, "" if none is."""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        return ""
    import difflib  # noqa: PLC0415  # only a mistyped name needs it

    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.8)
    return f"did you mean {by_lower[near[0]]}?" if near else ""


def _json(value: object) -> str:
    import msgspec  # noqa: PLC0415  # help texts and completions do not need it

    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except (UnicodeEncodeError, RecursionError, ValueError):
        return repr(value)


class Problem(NamedTuple):
    """One thing that is wrong with an input: `place: value rule (whose; hint)`."""

    place: str
    value: str
    rule: str
    hint: str = ""
    whose: str = ""  # the name of what the place belongs to: `V-Net red`

    def __str__(self) -> str:
        rule = " ".join(part for part in (self.value, self.rule) if part)
        text = f"{self.place}: {rule}" if self.place else rule
        beside = "; ".join(part for part in (self.whose, self.hint) if part)
        return f"{text} ({beside})" if beside else text


def text_of(error: OSError) -> str:
    """Return an error of the operating system as a message for a person."""
    return f"{error.filename or 'system'}: {error.strerror}"


def problems_of(failure: Exception) -> list[Problem]:
    """Return the problems of an exception: ours, the system's, or a fault in the code."""
    if isinstance(failure, EvpnHostError):
        return failure.problems
    if isinstance(failure, OSError):
        return [Problem("", "", text_of(failure))]
    return [Problem("", "", f"a fault of evpn-host: {type(failure).__name__}: {failure}")]


class EvpnHostError(Exception):
    """A failure that the user sees as messages and as an exit code."""

    exit_code = 1
    outcome = "refused"
    reported = False  # whether the journal has it already, because standard error goes there

    def __init__(self, *problems: Problem | str) -> None:
        texts = [p if isinstance(p, Problem) else Problem("", "", p) for p in problems]
        self.problems = [Problem(*map(mask, each)) for each in texts]
        super().__init__("\n".join(map(str, self.problems)))


class Refused(EvpnHostError):
    """The input or the host is not accepted: nothing was changed."""


class Problems(list[Problem]):
    """The problems of a document, at most `LIMIT`: a broken document must not fill the memory.

    One more ends the search: it raises `Refused` with the problems so far.
    """

    LIMIT = 1000

    def __init__(self) -> None:
        super().__init__()
        self._known: set[Problem] = set()

    def append(self, problem: Problem) -> None:
        """Add a problem once. A problem of a V-Net is found again for each of its hosts."""
        if problem in self._known:
            return
        self._known.add(problem)
        if len(self) == self.LIMIT:
            more = f"there are more than {self.LIMIT} problems; the rest is not shown"
            raise Refused(*self, more)
        super().append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems."""
        for problem in problems:
            self.append(problem)


class Unreachable(Refused):
    """No payload came from the controller: the host keeps what it has."""

    outcome = "unreachable"


class ActivationFailed(EvpnHostError):
    """A native tool failed, or a check after it."""

    exit_code = 3
    outcome = "failed"


class Interrupted(EvpnHostError):
    """A signal asked us to end."""

    exit_code = 130
    outcome = "refused"


class NotInstalled(ActivationFailed):
    """A native tool is not on this machine."""


class Unchecked(Refused):
    """The native tools can't read the new files here, because one of them is not installed."""


class Stranded(EvpnHostError):
    """Activation failed, and so did going back: a person is needed."""

    exit_code = 4
    outcome = "stranded"


def check_removed(remaining: Iterable[str]) -> None:
    """Raise `ActivationFailed` if something that had to be removed is still there.

    The next record does not name it, so no later run would look for it.
    """
    if problems := [Problem(name, "", "is still there") for name in remaining]:
        raise ActivationFailed(*problems)
