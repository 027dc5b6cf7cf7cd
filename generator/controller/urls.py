"""Compares and resolves URLs of controllers."""

import contextlib
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

from generator.controller.failures import Failed
from generator.errors import printable


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError as error:
        raise Failed(f"is not a URL: {printable(str(error))}") from None
    if not parts.hostname:
        raise Failed("is not a URL: it names no host")
    if parts.username or parts.password:
        raise Failed("has a password in it, which messages would show", "use token_file")
    return parts.scheme, parts.hostname, port


def redirected(url: str, location: str) -> str:
    """Return the URL to which an answer redirects. Raises `Failed`."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise Failed(f"redirects to {printable(location)}, which is not a URL") from None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by name or by address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def same(url: str, other: str) -> bool:
    """Whether two URLs lead to the same scheme, host and port."""
    try:
        return origin(url) == origin(other)
    except Failed:
        return False
