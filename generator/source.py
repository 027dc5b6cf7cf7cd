"""Where a payload comes from: a file, standard input, or a controller over HTTP."""

import sys
from pathlib import Path

from generator.errors import Refused, printable
from generator.payload.decode import MAX_BYTES

TIMEOUT = 10.0  # seconds without a byte


def read(source: str) -> bytes:
    """The payload's bytes. Raises `Refused` when there are none to be had, or too many."""
    if source.startswith(("http://", "https://")):
        data = _fetch(source)
    elif source == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
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


def _fetch(url: str) -> bytes:
    import http.client  # noqa: PLC0415  # only who has a controller pays for it
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            data: bytes = answer.read(MAX_BYTES + 1)
            return data
    except urllib.error.HTTPError as error:
        raise Refused(f"{printable(url)}: the controller answers {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Refused(f"{printable(url)}: {printable(str(reason))}") from None
