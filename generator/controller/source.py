"""Where a payload comes from: a file, standard input, or a controller."""

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from generator import secrets
from generator.controller.config import Config, expand, hostname, is_url
from generator.desired import plan
from generator.desired.payload.decode import MAX_BYTES
from generator.errors import Refused, printable
from generator.state import files, record, stored, tree

_GLANCE = 5.0  # seconds in which a controller that has answered answers again


class Origin(msgspec.Struct, frozen=True):
    """Where the last good payload came from, and the ETag by which to ask for a newer one."""

    url: str
    tag: str
    digest: str  # of the payload

    def is_of(self, url: str, data: bytes) -> bool:
        """Whether this is about a payload from a URL."""
        return (self.url, self.digest) == (url, plan.digest(data))


class Source:
    """The payload that the command line or config.yaml names, for one host."""

    def __init__(self, named: str, host: str | None, settings: Config, root: Path) -> None:
        self.root = root
        self.settings = settings
        self.name = host or hostname()
        # Of a URL with the host's name in it the payload has to be that host's.
        self.host = self.name if is_url(named) and "{host}" in named else host
        secrets.remember_in_url(named)
        self._named = expand(named, self.name) if is_url(named) else named
        self._tag = ""

    def read(self) -> bytes:
        """Return the payload. Raises `Refused`."""
        return self._ask("") or b"" if is_url(self._named) else local(self._named)

    def refresh(self) -> bytes:
        """Return the payload: the last good one if the controller says that it is current.

        Raises `Refused`.
        """
        if not is_url(self._named):
            return local(self._named)
        kept, known = last_good(self.root), _origin(self.root)
        if kept is None or known is None or not known.is_of(self._named, kept):
            return self._ask("") or b""
        newer = self._ask(known.tag)
        return kept if newer is None else newer

    @property
    def answers(self) -> Callable[[], bool] | None:
        """How to learn whether the controller still answers, None without one."""
        return self._answers if is_url(self._named) else None

    def _answers(self) -> bool:
        from generator.controller.http import Access  # noqa: PLC0415  # only who has one pays for it

        settings = self.settings.patient(_GLANCE)
        try:
            Access(settings, self.root, self.name).fetch(self._named, self._tag)
        except Refused:
            return False
        return True

    def remember(self, data: bytes) -> None:
        """Record that the last good payload came from here, unless that is recorded."""
        if not self._tag or last_good(self.root) != data:
            return
        origin = Origin(self._named, self._tag, plan.digest(data))
        if origin != _origin(self.root):
            files.write(self.root, record.ORIGIN, msgspec.json.encode(origin), 0o600)

    def _ask(self, tag: str) -> bytes | None:
        from generator.controller.http import Access  # noqa: PLC0415  # only who has one pays for it

        answer = Access(self.settings, self.root, self.name).fetch(self._named, tag)
        self._tag = answer.tag
        return answer.data


def local(source: str) -> bytes:
    """Return what is in a file or on standard input (`-`). Raises `Refused`."""
    if source == "-":
        try:
            data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else None
        except OSError as error:
            raise Refused(f"standard input: can't be read: {error.strerror}") from None
        if data is None:
            raise Refused("standard input: can't be read: it is closed")
    else:
        try:
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Refused(f"{printable(source)}: can't be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise Refused(f"{printable(source)}: is larger than 64 MiB")
    return data


def last_good(root: Path) -> bytes | None:
    """Return the payload of the last apply that succeeded."""
    try:
        return tree.read(root, record.PAYLOAD)
    except OSError:
        return None


def _origin(root: Path) -> Origin | None:
    try:
        return stored.read(root, record.ORIGIN, Origin)
    except (OSError, msgspec.DecodeError):
        return None
