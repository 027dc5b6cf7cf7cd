"""Fetches payloads from a controller over HTTP, and sends it reports. It trusts no answer.

urllib3 takes longer to import than everything else, so only a run with a controller imports it.
"""

import contextlib
import http.client
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from generator import __version__
from generator.controller.config import Config, expand, is_url
from generator.controller.failures import NOT_HTTP, Failed, refusal, translated
from generator.controller.urls import is_loopback, origin, redirected, same
from generator.desired.payload.decode import MAX_BYTES
from generator.errors import EvpnHostError, Problem, Unreachable, printable
from generator.state import tree

T = TypeVar("T")

_LATER = 2.0  # seconds
REPORT_TIMEOUT = 10.0  # seconds that a report may take at most
# The longest pause in seconds before the first retry; it doubles before each further one, up to
# LONG_PAUSE.
PAUSE, LONG_PAUSE = 0.5, 8.0
_REDIRECTS = 3  # more redirects count as a loop
_MOVED = {301, 302, 303, 307, 308}
# RFC 8259, and RFC 9512 with the older names.
_TYPE = re.compile(
    r"(application/([a-z0-9.+-]+\+)?(json|yaml)|(application|text)/(x-)?yaml)\s*(;.*)?",
    re.IGNORECASE,
)
_ACCEPT = "application/json, application/yaml;q=0.9"
_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{1,200}"')  # RFC 9110, 8.8.3
_MAX_TOKEN = 16 << 10  # bytes of a token's file
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")


class Answer(msgspec.Struct, frozen=True):
    """A controller's answer: a payload, or None if the payload with the given ETag is current."""

    data: bytes | None
    tag: str  # the payload's ETag, empty without one


class Access:
    """How this host reaches controllers: settings, certificates and a token."""

    def __init__(self, settings: Config, root: Path, host: str) -> None:
        self._settings = settings
        self._root = root
        self._own = expand(settings.controller or "", host)

    def fetch(self, url: str, tag: str = "") -> Answer:
        """Return a payload, or no data if that with ETag `tag` is current. Raises `Unreachable`."""
        headers = {"Accept": _ACCEPT} | ({"If-None-Match": tag} if tag else {})
        timeout = self._settings.timeout
        deadline = time.monotonic() + timeout

        reasons: list[str] = []

        def work() -> Answer:
            return self._retry(url, deadline, reasons, lambda: self._get(url, headers, deadline))

        return _within(timeout, url, work, reasons)

    def report(self, url: str, body: bytes) -> None:
        """Send a document once, within `REPORT_TIMEOUT`. Raises `Unreachable`."""
        deadline = time.monotonic() + REPORT_TIMEOUT
        headers = {"Content-Type": "application/json"}

        def work() -> None:
            try:
                answer = self._request("POST", url, headers, deadline, body)
                answer.close()
                if not 200 <= answer.status < 300:
                    raise refusal(answer, authorised=False)
            except Failed as failed:
                raise Unreachable(
                    Problem(printable(url, 200), "", failed.rule, failed.hint)
                ) from None

        _within(REPORT_TIMEOUT, url, work)

    def _retry(self, url: str, deadline: float, reasons: list[str], once: Callable[[], T]) -> T:
        """Call `once` until it succeeds or can't; `reasons` gets the reason of each failed try."""
        tries = 0
        while True:
            tries += 1
            try:
                return once()
            except Failed as failed:
                # Random over the whole range: hosts that failed together must not return together.
                longest = min(PAUSE * 2 ** (tries - 1), LONG_PAUSE)
                pause = max(failed.after, random.uniform(0, longest))  # noqa: S311
                late = time.monotonic() + pause > deadline
                if not failed.again or late or tries > self._settings.retries:
                    rule = f"{failed.rule} (tried {tries} times)" if tries > 1 else failed.rule
                    raise Unreachable(Problem(printable(url, 200), "", rule, failed.hint)) from None
                reasons.append(failed.rule)
                time.sleep(pause)

    def _get(self, url: str, headers: dict[str, str], deadline: float) -> Answer:
        here = url
        for _ in range(_REDIRECTS + 1):
            answer = self._request("GET", here, headers, deadline)
            if answer.status not in _MOVED:
                return _payload(answer, headers, authorised="token" in self._secrets(url))
            answer.close()
            target = redirected(here, answer.headers.get("Location", ""))
            if not same(target, here):
                rule = f"redirects to {printable(target)}, another server, which is not followed"
                raise Failed(rule)
            here = target
        raise Failed("redirects again and again")

    def _request(
        self, method: str, url: str, headers: dict[str, str], deadline: float, body: bytes = b""
    ) -> Any:
        import urllib3  # noqa: PLC0415

        self._refuse_plain(url)
        left = max(deadline - time.monotonic(), 0.1)
        # The socket's time-out comes after the deadline, whose message says more.
        read = left + _LATER
        timeout = urllib3.Timeout(connect=min(self._settings.connect_timeout, left), read=read)
        headers = {
            "User-Agent": f"evpn-host/{__version__}",
            "Accept-Encoding": "identity",  # no compression bombs; with ETags little would be saved
            **headers,
        }
        secrets = self._secrets(url)
        if "token" in secrets:
            headers["Authorization"] = f"Bearer {_token(self._root, secrets['token'])}"
        pool = self._pool(url, secrets)
        try:
            # After the block the pool closes each connection that is returned to it.
            with pool:
                return pool.request(
                    method,
                    url,
                    body=body or None,
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    enforce_content_length=True,
                )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise translated(error) from None

    def _refuse_plain(self, url: str) -> None:
        """Raise `Failed` for plain http to another machine, unless the operator allows it."""
        scheme, host, _ = origin(url)
        if scheme == "http" and not is_loopback(host) and not self._settings.insecure:
            rule = "is plain http, in which anybody on the way can change a payload"
            raise Failed(rule, "use https, or set insecure: true in config.yaml")

    def _pool(self, url: str, secrets: dict[str, str]) -> Any:
        import urllib3  # noqa: PLC0415

        options: dict[str, Any] = {}
        if url.startswith("https:"):
            options["ssl_context"] = self._tls(secrets)
        proxy = _proxy(url)
        if proxy is None:
            return urllib3.PoolManager(**options)
        try:
            login = urllib3.util.parse_url(proxy).auth
            headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
            return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
        except (urllib3.exceptions.HTTPError, ValueError):
            raise Failed("the proxy that the environment names is not an http(s) URL") from None

    def _tls(self, secrets: dict[str, str]) -> ssl.SSLContext:
        import urllib3  # noqa: PLC0415

        name = self._settings.ca_file
        try:
            with self._opened(name) as cafile:
                context = ssl.create_default_context(cafile=cafile)
            if urllib3.__version__.startswith("1."):  # type: ignore[attr-defined]
                # urllib3 1 compares names itself, because it can't give OpenSSL an address.
                context.check_hostname = False
            if "key" in secrets:
                name = secrets["key"]
                _require_private(self._root, name)
                with self._opened(name) as key:
                    name = secrets["certificate"]
                    with self._opened(name) as certificate:
                        context.load_cert_chain(certificate or "", key, password=lambda: "")
            return context
        except (ssl.SSLError, ValueError):
            reason = "does not hold what it should, in PEM and without a passphrase"
        except OSError as error:
            reason = f"can't be read: {error.strerror}"
        raise Failed(f"{printable(name or 'CA certificates')}: {reason}")

    def _secrets(self, url: str) -> dict[str, str]:
        """Return the files with our credentials, if they may be sent to the URL's server.

        They are for the controller of config.yaml. A URL on the command line, or one for reports,
        gets them only if it leads to the same server. Without such a controller no URL gets them.
        """
        if not is_url(self._own) or origin(url) != origin(self._own):
            return {}
        settings = self._settings
        files = {
            "token": settings.token_file,
            "certificate": settings.certificate_file,
            "key": settings.key_file,
        }
        secrets = {what: name for what, name in files.items() if name}
        if secrets and not url.startswith("https:"):
            raise Failed("tokens and certificates are not sent over plain http", "use https")
        return secrets

    @contextlib.contextmanager
    def _opened(self, name: str | None) -> Iterator[str | None]:
        """Yield a path by which OpenSSL can read a file of config.yaml; None without a file."""
        if name is None:
            yield None
            return
        with tree.opened(self._root, name.lstrip("/")) as path:
            yield path


def _within(seconds: float, url: str, work: Callable[[], T], reasons: Sequence[str] = ()) -> T:
    """Return the result of `work`, if it comes in time; `reasons` are those of failed tries.

    A socket's time-out covers neither the resolver nor an answer that comes byte by byte. So the
    work runs in a thread. If it is too late, the thread is abandoned and ends with the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # `future.result` raises it again
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except EvpnHostError:
        raise
    except Exception as error:  # noqa: BLE001  # a hostile answer may cause any error in a library
        rule = str(translated(error))
        if not future.done():
            rule = f"did not give a whole answer within {seconds:g} s"
            rule += f"; before that: {reasons[-1]}" if reasons else ""
        raise Unreachable(Problem(printable(url, 200), "", rule)) from None


def _payload(answer: Any, headers: dict[str, str], *, authorised: bool) -> Answer:
    """Return the payload of an answer. Reads no more bytes than a payload may have."""
    import urllib3  # noqa: PLC0415

    try:
        if answer.status == HTTPStatus.NOT_MODIFIED and "If-None-Match" in headers:
            return Answer(None, headers["If-None-Match"])
        if answer.status != HTTPStatus.OK:
            raise refusal(answer, authorised=authorised)
        type_ = answer.headers.get("Content-Type", "")
        if not _TYPE.fullmatch(type_):
            raise Failed(
                f"offers {printable(type_) or 'something without a type'}, not JSON or YAML"
            )
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise Failed(f"sends Content-Encoding {printable(encoding)}, which was not requested")
        length = answer.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BYTES:
            raise Failed(_TOO_LARGE)
        data = bytearray()
        # Not `stream`: before urllib3 2.8 it reads lines of a chunked answer without a limit.
        while chunk := answer.read(1 << 16, decode_content=False):
            data += chunk
            if len(data) > MAX_BYTES:
                raise Failed(_TOO_LARGE)
        tag = answer.headers.get("ETag", "")
        return Answer(bytes(data), tag if _TAG.fullmatch(tag) else "")
    except ValueError:  # a chunk with a negative size
        raise Failed(NOT_HTTP) from None
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        raise translated(error) from None
    finally:
        answer.close()


_TOO_LARGE = "is larger than 64 MiB"


def _proxy(url: str) -> str | None:
    """Return the proxy for a URL from the environment, by the rules of curl and wget."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib import request  # noqa: PLC0415

    scheme, host, port = origin(url)
    proxies: dict[str, str] = request.getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or request.proxy_bypass(f"{host}:{port}", proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _require_private(root: Path, name: str) -> None:
    """Raise `Failed` if anybody except its owner may read a file."""
    with tree.opened(root, name.lstrip("/")) as path:
        if Path(path).stat().st_mode & 0o077:
            raise Failed(f"{name}: others can read it", f"chmod 600 {name}")


def _token(root: Path, file: str) -> str:
    """Return the bearer token in a file. Raises `Failed`."""
    try:
        _require_private(root, file)
        text = tree.read(root, file.lstrip("/"), _MAX_TOKEN).decode().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise Failed(f"{file}: can't be read: {reason}") from None
    if not _TOKEN.fullmatch(text):
        raise Failed(f"{file}: is not a token, which is printable characters without spaces")
    return text
