"""The frame of the command line: standard streams, types of options, exit codes like diff's."""

import io
import math
import os
import re
import select
import sys
import traceback
from typing import TYPE_CHECKING

import click

from generator.errors import EvpnHostError, Refused, printable, text_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TROUBLE = 2  # of diff, and of a wrong command line


class Unwritten(EvpnHostError):
    """Results could not be written. The verb's changes to the host stay."""

    exit_code = 74  # EX_IOERR of sysexits.h: 1 would say that nothing was changed


class ReaderGone(EvpnHostError):
    """The reader of the results has ended, as in `evpn-host schema | head -1`: no message."""

    exit_code = 141  # a shell's exit code for a program that SIGPIPE has ended


class _Results(io.FileIO):
    """Standard output. A lost result has an error of its own, because the verb did not fail."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            while (count := super().write(data)) is None:
                select.select([], [self], [])  # the caller has made the pipe non-blocking
            return count
        except BrokenPipeError:
            _discard(self.fileno())
            raise ReaderGone from None
        except OSError as error:
            _discard(self.fileno())
            raise Unwritten(f"standard output: {error.strerror}") from None


class _Messages(io.FileIO):
    """Standard error. A message that can't be written must not stop an apply."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _discard(descriptor: int) -> None:
    """Send buffered output to /dev/null, because Python writes it when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def prepare_streams() -> None:
    """Open closed descriptors 0 to 2, and make failed writes to standard output an error.

    A caller may have closed them (`>&-`). The next file that is opened would get such a number, and
    printed text would go into that file. So closed descriptors are opened here, in the direction in
    which any use fails, as gnulib's stdopen does.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(1, "wb", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Messages(2, "wb", closefd=False), sys.stderr)


def _text(raw: io.FileIO, previous: object) -> io.TextIOWrapper:
    """Return a stream for text. Characters outside the locale's encoding become escapes."""
    old = previous if isinstance(previous, io.TextIOWrapper) else None
    encoding = old.encoding if old else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=True
    )


class Filled(click.types.StringParamType):
    """Text that is not empty: an empty variable of a script must not act like a missing option."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        if not value:
            self.fail("is empty", param, ctx)
        return value


class Folder(click.Path):
    """The path of a folder. An empty path is refused: `Path` would make it the current folder."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Return the path."""
        if not os.fspath(value):
            self.fail("is empty", param, ctx)
        return super().convert(value, param, ctx)


class Address(click.types.StringParamType):
    """An IP address, or a MAC."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address or the MAC in its usual form."""
        from ipaddress import ip_address  # noqa: PLC0415  # only this verb pays for it

        mac = value.replace("-", ":").lower()
        if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac):
            return mac
        try:
            return str(ip_address(value))
        except ValueError:
            self.fail(f"{printable(value)} is no IP address and no MAC", param, ctx)


def a_number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Return an option's value, which click's ranges let pass if it is nan."""
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"{value} is not in the range {_range_of(param)}.", ctx, param)
    return value


def _range_of(param: click.Parameter) -> str:
    """Return a range as click's own messages show it."""
    return param.type._describe_range() if isinstance(param.type, click.FloatRange) else ""


class Verbs(click.Group):
    """All verbs. Each runs with the same umask, whatever the caller's is."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        os.umask(0o022)  # networkd and FRR read our files as users of their own
        return super().invoke(ctx)


class Diff(click.Command):
    """Ends with 2 in trouble, as diff(1) does: its 1 says that something differs."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except (Refused, Unwritten) as trouble:
            trouble.exit_code = TROUBLE
            raise
        except OSError as error:
            refused = Refused(text_of(error))
            refused.exit_code = TROUBLE
            raise refused from None
        except (EvpnHostError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # noqa: BLE001  # a bug is trouble (2), not a difference (1)
            traceback.print_exc()
            sys.exit(TROUBLE)


def is_coloured() -> bool:
    """Whether results are for a terminal whose user has not turned colours off."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def colour(line: str) -> str | None:
    """Return the colour of a line by the sign that it begins with."""
    if line.startswith(("--- ", "+++ ")):
        return None
    return {"+": "green", "-": "red", "~": "yellow", "@": "cyan"}.get(line[:1])
