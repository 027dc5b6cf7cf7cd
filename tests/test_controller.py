"""A controller over HTTPS: how a host deals with a good one, and with each kind of bad one.

Real servers run on loopback, with certificates of their own CA.
"""

import datetime
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trustme

from examples.controller import Controller, Handler
from generator.controller.config import Config
from generator.controller.http import LONG_PAUSE, Access
from generator.desired.payload.decode import MAX_BYTES
from generator.errors import ActivationFailed, Unreachable
from generator.reporting import fleet, journal, report
from generator.reporting.report import Outcome
from generator.reporting.status import NOTHING_APPLIED
from generator.state import record
from lab.result import Result
from tests import endless
from tests.conftest import REPO
from tests.folders import etc_files
from tests.strategies import Json, as_yaml, encoded, host, server
from tests.test_apply import FRR, NEW, OLD, OPERATOR, stamps
from tests.test_cli import process

Behaviour = Callable[[Handler], None]
OTHER = host(generation=1, server=server(name="K8S02"))
TOKEN = "a-token-of-some-length"  # noqa: S105  # the token of a test's controller


class RecordingController(Controller):
    """A controller that records its requests, and misbehaves where a test wants it."""

    url: str  # once it serves

    def __init__(self, folder: Path, token: str = "", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), folder, token)
        self.RequestHandlerClass = _RecordingHandler
        self.requests: list[dict[str, str]] = []
        self.answers: list[int] = []
        self.behaviour: Behaviour | None = None
        self.closing = threading.Event()

    def give(self, document: Json, name: str = "K8S01.json") -> None:
        """Offer a payload from now on."""
        (self.folder / name).write_bytes(encoded(document))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about clients that closed the connection."""


class _RecordingHandler(Handler):
    server: RecordingController

    def do_GET(self) -> None:  # noqa: N802 - as its base names it
        self.server.requests.append({"path": self.path, **self.headers})
        (self.server.behaviour or Handler.do_GET)(self)

    def send_response(self, code: int, message: str | None = None) -> None:
        self.server.answers.append(code)
        super().send_response(code, message)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as its base names it
        """Print no log."""


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Make the CA that the host trusts."""
    return trustme.CA()


@contextmanager
def serving(
    controller: RecordingController, certificate: trustme.LeafCert | None, folder: Path
) -> Iterator[str]:
    """Serve in a thread and yield the URL. Without a certificate, serve plain HTTP."""
    if certificate:
        pem = folder / f"{time.monotonic_ns()}.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
        controller.speak_tls(pem, pem)
    thread = threading.Thread(target=partial(controller.serve_forever, 0.01))
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{controller.server_port}"
    finally:
        controller.closing.set()
        controller.shutdown()
        thread.join()
        controller.server_close()


@pytest.fixture
def controller(tmp_path: Path, ca: trustme.CA) -> Iterator[RecordingController]:
    """Run a controller with a payload of K8S01; its URL is in `url`."""
    folder = tmp_path / "payloads"
    folder.mkdir()
    instance = RecordingController(folder)
    instance.give(OLD)
    with serving(instance, ca.issue_cert("127.0.0.1"), tmp_path) as instance.url:
        yield instance


class Tree:
    """A host's tree, and the command on it."""

    def __init__(self, root: Path, command: Callable[..., Result]) -> None:
        self.root = root
        self.command = command
        self.settings: Json = {}
        operator = root / OPERATOR
        operator.parent.mkdir(parents=True)
        operator.write_text("network: {ethernets: {ens4: {addresses: [10.12.0.101/16]}}}\n")

    def put(self, name: str, text: str | bytes, mode: int = 0o600) -> str:
        """Write a file below /etc/evpn-host; return its path on the host."""
        file = self.root / "etc/evpn-host" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(mode)
        return f"/etc/evpn-host/{name}"

    def set(self, **settings: Any) -> None:
        """Change config.yaml (JSON is YAML)."""
        self.settings |= settings
        self.put("config.yaml", json.dumps(self.settings))

    def run(self, verb: str, *options: object) -> Result:
        return self.command(verb, "--root", self.root, *options)


@pytest.fixture
def tree(
    tmp_path: Path,
    controller: RecordingController,
    ca: trustme.CA,
    evpn_host: Callable[..., Result],
) -> Tree:
    """Make a host that knows the controller, and tries twice."""
    instance = Tree(tmp_path / "root", evpn_host)
    instance.put("ca.pem", ca.cert_pem.bytes())
    url = f"{controller.url}/{{host}}.json"
    instance.set(controller=url, host="K8S01", ca_file="/etc/evpn-host/ca.pem", retries=1)
    instance.set(timeout=60, connect_timeout=60)  # enough on a busy machine
    return instance


# --- A controller that works ---


def test_an_unchanged_payload_costs_one_small_request(
    tree: Tree, controller: RecordingController
) -> None:
    """The first run fetches it. The next asks with the ETag, gets a 304, and writes nothing."""
    first = tree.run("apply")
    assert first.code == 0
    assert "/etc/frr/frr.conf" in first.out.splitlines()
    assert [request["path"] for request in controller.requests] == ["/K8S01.json"]
    assert "If-None-Match" not in controller.requests[0]
    before = stamps(tree.root)
    assert tree.run("apply") == Result(0, "", "")
    assert controller.answers == [200, 304]
    assert controller.requests[1]["If-None-Match"].startswith('"')
    assert stamps(tree.root) == before


def test_repairs_a_file_though_the_payload_is_unchanged(
    tree: Tree, controller: RecordingController
) -> None:
    """apply writes a file that somebody changed again, from the last good payload."""
    tree.run("apply")
    good = etc_files(tree.root)
    (tree.root / FRR).write_text("mine\n")
    assert tree.run("diff").code == 1
    assert tree.run("apply").out == "/etc/frr/frr.conf\n"
    assert controller.answers == [200, 304, 304]
    assert etc_files(tree.root) == good


def test_fetches_a_new_payload(tree: Tree, controller: RecordingController) -> None:
    """A payload with another ETag is applied, and the next request asks with that ETag."""
    tree.run("apply")
    controller.give(NEW)
    assert tree.run("apply").code == 0
    assert json.loads((tree.root / record.RECORD).read_bytes())["target"]["generation"] == 2
    tree.run("apply")
    assert controller.answers == [200, 200, 304]


@pytest.mark.parametrize(
    "type_", ["application/yaml", "text/yaml", "application/x-yaml; charset=utf-8", "a/b"]
)
def test_takes_a_payload_in_yaml(tree: Tree, controller: RecordingController, type_: str) -> None:
    """apply prefers JSON to YAML, and accepts both by their types."""
    controller.behaviour = partial(plain, body=as_yaml(NEW), type_=type_)
    result = tree.run("apply")
    assert controller.requests[0]["Accept"] == "application/json, application/yaml;q=0.9"
    assert result.code == (1 if type_ == "a/b" else 0)
    assert (tree.root / record.RECORD).exists() == (type_ != "a/b")


def test_keeps_no_tag_of_a_refused_payload(tree: Tree, controller: RecordingController) -> None:
    """Each run fetches a refused payload again, and names its problems again."""
    tree.run("apply")
    controller.give(NEW | {"vnetz": []})
    for _ in range(2):
        assert "vnetz: is not a field that is known here" in tree.run("apply").err
    controller.give(OLD)
    assert tree.run("apply").code == 0
    assert controller.answers == [200, 200, 200, 304]


def test_uses_a_tag_for_its_own_url_and_payload_only(
    tree: Tree, controller: RecordingController
) -> None:
    """For another URL, or when the stored payload has changed, apply fetches without the tag."""
    tree.run("apply")
    controller.give(OLD, "other.json")
    tree.set(controller=f"{controller.url}/other.json")
    tree.run("apply")
    (tree.root / record.PAYLOAD).write_bytes(b"{}")
    tree.run("apply")
    assert controller.answers == [200, 200, 200]


def test_asks_without_a_tag_when_there_is_no_valid_one(
    tree: Tree, controller: RecordingController
) -> None:
    """The controller may send no ETag, or one of a wrong form."""
    for tag in ("", "no quotes", '"' + "x" * 300 + '"', '"tab\t"'):
        controller.behaviour = partial(plain, tag=tag)
        assert tree.run("apply").code == 0
        assert "If-None-Match" not in controller.requests[-1]


def test_tries_again_after_a_short_fault(tree: Tree, controller: RecordingController) -> None:
    """The same run asks a controller again that was overloaded for a moment."""

    def once(handler: Handler) -> None:
        controller.behaviour = None
        handler.answer(HTTPStatus.SERVICE_UNAVAILABLE)

    controller.behaviour = once
    assert tree.run("apply").code == 0
    assert controller.answers == [503, 200]


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port on which nobody listens, and that no other process can get meanwhile."""
    with socket.socket() as bound:
        bound.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a server of the test may listen on it later
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_wait_keeps_trying_until_the_controller_answers(
    tree: Tree, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --wait 60 apply tries on while nobody listens, whatever `retries` says."""
    pauses: list[float] = []
    with closed_port() as port, ExitStack() as servers:
        tree.set(controller=f"https://127.0.0.1:{port}/K8S01.json", retries=0)

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                late = RecordingController(tmp_path / "payloads", port=port)
                servers.enter_context(serving(late, ca.issue_cert("127.0.0.1"), tmp_path))

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=pause)
        monkeypatch.setattr("generator.controller.http.time", clock)
        assert tree.run("apply", "--wait", "60").code == 0
    assert len(pauses) == 3


def test_wait_ends_after_its_seconds(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --wait 60 all pauses between the tries last 60 seconds at most together."""
    pauses: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr("generator.controller.http.time", clock)
    with closed_port() as port:
        tree.set(controller=f"https://127.0.0.1:{port}/K8S01.json", retries=0)
        assert "can't be reached: Connection refused" in tree.run("apply", "--wait", "60").err
    assert len(pauses) > 5  # each pause has eight seconds at most
    assert 60 - LONG_PAUSE < sum(pauses) <= 60


def test_follows_a_redirect_to_the_same_host_and_port(
    tree: Tree, controller: RecordingController
) -> None:
    """The controller may move a payload to another path."""

    def redirect_once(handler: Handler) -> None:
        controller.behaviour = None
        redirect(handler, "/K8S01.json", 308)

    controller.behaviour = redirect_once
    assert tree.run("apply").code == 0
    assert controller.answers == [308, 200]


def test_sends_the_token_of_a_file(tree: Tree, controller: RecordingController) -> None:
    """Where the token is missing or wrong, the message says so."""
    controller.token = TOKEN
    assert "401 Unauthorized: it wants a token (token_file in config.yaml)" in tree.run("apply").err
    tree.set(token_file=tree.put("token", "another"))
    assert "401 Unauthorized: it rejects this host's token" in tree.run("apply").err
    tree.put("token", TOKEN + "\n")
    assert tree.run("apply").code == 0
    assert controller.answers == [401, 401, 200]


def test_presents_the_hosts_certificate(
    tree: Tree, controller: RecordingController, ca: trustme.CA
) -> None:
    """A controller that asks for a certificate ends the connection when it gets none."""
    controller.socket.context.verify_mode = ssl.CERT_REQUIRED  # type: ignore[attr-defined]
    ca.configure_trust(controller.socket.context)  # type: ignore[attr-defined]
    # Which of these messages comes depends on timing.
    messages = "it wants a certificate of this host|Connection reset|TLS: ended the connection"
    assert re.search(messages, tree.run("apply").err)
    own = ca.issue_cert("K8S01.example")
    certificate = tree.put("host.pem", own.cert_chain_pems[0].bytes(), 0o644)
    key = tree.put("host.key", own.private_key_pem.bytes())
    tree.set(certificate_file=certificate, key_file=key)
    assert tree.run("apply").code == 0


def test_uses_the_proxy_of_the_environment(
    tree: Tree, controller: RecordingController, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """apply obeys https_proxy and no_proxy; TLS goes through the proxy to the controller."""
    with connect_proxy() as (proxy, requests):
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        assert tree.run("apply").code == 0
        assert requests == [f"CONNECT 127.0.0.1:{controller.server_port} HTTP/1."]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert tree.run("apply").code == 0
        assert len(requests) == 1
    monkeypatch.setenv("no_proxy", "")
    assert "the proxy can't be reached: Connection refused" in tree.run("apply").err
    monkeypatch.setenv("https_proxy", "ftp://127.0.0.1/")
    assert "the proxy that the environment names is not" in tree.run("apply").err
    del tmp_path


@contextmanager
def connect_proxy() -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that knows CONNECT; yield its URL and the first line of each request."""
    requests: list[str] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def tunnel(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            first = lines.readline().decode()
            requests.append(first.strip()[:-1])
            while lines.readline().strip():
                pass
            name, _, port = first.split()[1].partition(":")
            with socket.create_connection((name, int(port))) as upstream:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(upstream, client))
                back.start()
                pump(client, upstream)
                back.join()

    def accept() -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=tunnel, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# --- A controller that misbehaves ---


def plain(
    handler: Handler,
    body: bytes = encoded(NEW),
    *,
    status: int = 200,
    type_: str = "application/json",
    tag: str = "",
    length: int | None = None,
    **headers: str,
) -> None:
    """Send an answer; each part of it may be wrong."""
    handler.send_response(status)
    fields = {"Content-Type": type_, "ETag": tag} | headers
    fields["Content-Length"] = str(len(body) if length is None else length)
    for name, value in fields.items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    handler.close_connection = True
    handler.end_headers()
    handler.wfile.write(body)


def redirect(handler: Handler, place: str, status: int = 302) -> None:
    plain(handler, b"", status=status, Location=place)


def sleeping(handler: Handler) -> None:
    """Take the request, and send nothing for longer than any client waits."""
    assert isinstance(handler.server, RecordingController)
    handler.server.closing.wait(120)


def dripping(handler: Handler) -> None:
    """Send a byte now and then, so that no time-out of a socket ends the answer."""
    assert isinstance(handler.server, RecordingController)
    plain(handler, b"{", length=1000)
    while not handler.server.closing.wait(0.2):
        handler.wfile.write(b" ")


def chunked(handler: Handler, chunk: bytes, times: int, end: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(times):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    handler.wfile.write(end)


def raw(handler: Handler, answer: bytes) -> None:
    handler.close_connection = True
    handler.wfile.write(answer)


def busy_then_sleeping(handler: Handler) -> None:
    """Answer the first request with 503, and the next ones not at all."""
    assert isinstance(handler.server, RecordingController)
    handler.server.behaviour = sleeping
    plain(handler, body=b"", status=503)


BODY = encoded(NEW)
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD: dict[str, tuple[Behaviour, str]] = {
    "slow": (sleeping, ".json: did not give a whole answer within 2 s"),
    "byte by byte": (dripping, ".json: did not give a whole answer within 2 s"),
    "slow when tried again": (
        busy_then_sleeping,
        # This is enough time for two requests, on a busy machine too.
        "within 8 s; before that: the controller answers 503 Service Unavailable",
    ),
    "truncated": (
        partial(plain, body=BODY[:100], length=len(BODY)),
        "ended its answer too early (tried 2 times)",
    ),
    "a chunk without its end": (
        partial(chunked, chunk=BODY, times=1, end=b"1000\r\n{"),
        "ended its answer too early (tried 2 times)",
    ),
    "no answer": (partial(raw, answer=b""), "ended the connection without an answer"),
    "no HTTP": (partial(raw, answer=b"hello\r\n\r\n"), "ended the connection without an answer"),
    "a page": (
        partial(plain, type_="text/html; charset=x"),
        "offers text/html; charset=x, not JSON or YAML",
    ),
    "no type": (partial(plain, type_=""), "offers something without a type, not JSON or YAML"),
    "packed": (
        partial(plain, Content_Encoding="gzip"),
        "sends Content-Encoding gzip, which was not",
    ),
    "no content": (partial(plain, body=b"", status=204), "answers 204 No Content, which is no"),
    "part": (partial(plain, status=206), "answers 206 Partial Content, which is no payload"),
    "401": (partial(plain, status=401), "answers 401 Unauthorized: it wants a token"),
    "403": (partial(plain, status=403), "answers 403 Forbidden: this host may not have it"),
    "404": (partial(plain, status=404), "answers 404 Not Found: it has nothing under this address"),
    "429": (
        partial(plain, status=429),
        "answers 429 Too Many Requests: it asks to try again later",
    ),
    "500": (partial(plain, status=500), "Server Error: it has an internal error (tried 2 times)"),
    "503, for long": (
        partial(plain, status=503, Retry_After="3600"),
        "answers 503 Service Unavailable: it has an internal error\n",
    ),
    "599": (partial(plain, status=599), "answers 599: it has an internal error (tried 2 times)"),
    "another host": (
        partial(redirect, place="https://127.0.0.2:1/K8S01.json"),
        "redirects to https://127.0.0.2:1/K8S01.json, another server",
    ),
    "plain http": (
        partial(redirect, place="http://127.0.0.1/p"),
        "redirects to http://127.0.0.1/p, another",
    ),
    "no URL": (partial(redirect, place="https://["), "redirects to https://[, which is not a URL"),
    "no port": (partial(redirect, place="//127.0.0.1:99999/x"), "another server"),
    "a chunk of a negative size": (
        partial(raw, answer=CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n"),
        "sends an answer that is not HTTP",
    ),
    "a chunk's size without end": (
        partial(raw, answer=CHUNKED + b"1" * (1 << 20)),
        "sends an answer that is not HTTP",
    ),
    "a trailer without end": (
        partial(raw, answer=CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a" * (1 << 20)),
        "sends an answer that is not HTTP",
    ),
    "a file": (partial(redirect, place="file:///etc/shadow"), "file:///etc/shadow"),
    "round and round": (
        partial(redirect, place="?again"),
        "redirects again and again",
    ),
    "too large, as it says": (partial(plain, body=b"", length=MAX_BYTES + 1), "larger than 64 MiB"),
    "too large, chunk by chunk": (
        partial(chunked, chunk=b" " * (1 << 20), times=65, end=b"0\r\n\r\n"),
        "is larger than 64 MiB",
    ),
    "not JSON": (partial(plain, body=b"{]"), "the payload is not JSON"),
    "an older generation": (
        partial(plain, body=encoded(OLD | {"generation": 0})),
        "generation: 0 is lower than the one applied, 1 (--force",
    ),
    "another host's payload": (
        partial(plain, body=encoded(OTHER)),
        "the payload has no host K8S01 in role EVPN-VTEP; it has: K8S02",
    ),
    "escapes": (partial(plain, type_="a\x1b[2J"), "offers a\\x1b[2J, not JSON or YAML"),
}


# The time-outs of the socket and of the whole answer end together: on a busy machine either may be
# first, and each has its own message.
ALTERNATIVES = {
    "slow": ".json: did not answer in time\n",
    "slow when tried again": ".json: did not answer in time (tried 2 times)\n",
}


@pytest.mark.parametrize("name", BAD)
def test_each_failure_has_its_message_and_changes_nothing(
    name: str, tree: Tree, controller: RecordingController
) -> None:
    """The exit code is 1, and every file of the host stays as it was."""
    tree.run("apply")
    behaviour, message = BAD[name]
    controller.behaviour = behaviour
    if seconds := re.search(r"within (\d+) s", message):
        tree.set(timeout=int(seconds[1]))
        tree.command = process  # in a process the waiting thread would end too
    before = stamps(tree.root)
    result = tree.run("apply")
    assert (result.code, result.out) == (1, "")
    assert message in result.err or (name in ALTERNATIVES and ALTERNATIVES[name] in result.err)
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err
    assert stamps(tree.root) == before


def test_an_answer_without_end_fills_no_memory() -> None:
    """The status line, headers, chunks, trailers, bodies: each has a limit, whatever the answer."""
    result = subprocess.run(
        [sys.executable, endless.__file__, REPO], capture_output=True, text=True, check=True
    )
    assert endless.faults(result.stdout) == {}


def test_refuses_a_304_to_a_request_without_a_tag(
    tree: Tree, controller: RecordingController
) -> None:
    """Without an ETag in the request, a 304 is not a payload."""
    controller.behaviour = partial(plain, body=b"", status=304)
    assert "answers 304 Not Modified, which is no payload" in tree.run("apply").err


def test_says_why_a_controller_can_not_be_reached(
    tree: Tree, controller: RecordingController
) -> None:
    """The port is closed, or the name has no address."""
    with closed_port() as port:
        tree.set(controller=f"https://127.0.0.1:{port}/p.json")
        assert "can't be reached: Connection refused (tried 2 times)" in tree.run("apply").err
    tree.set(controller="https://controller.invalid/p.json")
    assert "controller.invalid/p.json: can't be reached: " in tree.run("apply").err
    del controller


@pytest.mark.parametrize(
    ("names", "not_after", "message"),
    [
        (["127.0.0.1"], -1, "its certificate has expired, or this machine's clock is fast"),
        (["other.example"], 1, "its certificate is for another name or address"),
    ],
)
def test_refuses_an_expired_or_foreign_certificate(  # noqa: PLR0917
    names: list[str], not_after: int, message: str, tree: Tree, ca: trustme.CA, tmp_path: Path
) -> None:
    """apply sends no request, and does not try again."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=not_after)
    begin = end - datetime.timedelta(days=10)
    certificate = ca.issue_cert(*names, not_before=begin, not_after=end)
    bad = RecordingController(tmp_path / "payloads")
    with serving(bad, certificate, tmp_path) as url:
        result = tree.run("apply", "-p", f"{url}/K8S01.json")
    assert result.err == f"evpn-host: {url}/K8S01.json: {message}\n"
    assert bad.requests == []


def test_refuses_a_certificate_of_another_ca(tree: Tree, tmp_path: Path) -> None:
    """The message names the setting for the CA."""
    bad = RecordingController(tmp_path / "payloads")
    with serving(bad, trustme.CA().issue_cert("127.0.0.1"), tmp_path) as url:
        result = tree.run("apply", "-p", f"{url}/K8S01.json")
    assert (
        "its certificate is not of a CA that is trusted here (ca_file in config.yaml)" in result.err
    )


def test_refuses_a_server_without_tls(tree: Tree, tmp_path: Path) -> None:
    """For an https URL a server without TLS gets no request."""
    bad = RecordingController(tmp_path / "payloads")
    with serving(bad, None, tmp_path) as url:
        result = tree.run("apply", "-p", f"{url.replace('http', 'https')}/K8S01.json")
    assert "K8S01.json: TLS: " in result.err
    assert bad.requests == []


def test_refuses_unusable_secrets_before_any_request(
    tree: Tree, controller: RecordingController, ca: trustme.CA
) -> None:
    """The message names the token, key or CA file that can't be used."""
    token = tree.put("token", TOKEN, 0o640)
    tree.set(token_file=token)
    assert f"{token}: others can read it (chmod 600 " in tree.run("apply").err
    for text, message in (
        ("", "is not a token"),
        ("two words", "is not a token"),
        (b"\xff", "text"),
    ):
        tree.put("token", text)
        assert message in tree.run("apply").err
    tree.put("token", f"{TOKEN}\r\nX-More: 1")
    assert "is not a token" in tree.run("apply").err
    tree.set(token_file="/etc/evpn-host/none")  # noqa: S106
    assert "/etc/evpn-host/none: can't be read: No such file" in tree.run("apply").err
    own = ca.issue_cert("K8S01.example")
    key = tree.put("host.key", own.private_key_pem.bytes(), 0o644)
    certificate = tree.put("host.pem", own.cert_chain_pems[0].bytes())
    tree.set(token_file=None, certificate_file=certificate, key_file=key)
    assert f"{key}: others can read it" in tree.run("apply").err
    tree.put("host.key", "no key")
    assert f"{certificate}: does not hold what it should" in tree.run("apply").err
    tree.set(certificate_file=None, key_file=None, ca_file=tree.put("ca.pem", "no CA"))
    assert "/etc/evpn-host/ca.pem: does not hold what it should" in tree.run("apply").err
    tree.set(ca_file="/etc/evpn-host/none")
    assert "/etc/evpn-host/none: can't be read: No such file" in tree.run("apply").err
    assert controller.requests == []


def test_sends_the_token_to_the_controller_only(tree: Tree, ca: trustme.CA, tmp_path: Path) -> None:
    """No other server gets it, with or without a controller in config.yaml; http is refused."""
    own = tree.settings["controller"]
    tree.set(token_file=tree.put("token", TOKEN))
    other = RecordingController(tmp_path / "payloads")
    with serving(other, ca.issue_cert("127.0.0.1"), tmp_path) as url:
        for controller in (own, "/root/payload.json", None):
            tree.set(controller=controller)
            assert tree.run("apply", "-p", f"{url}/K8S01.json").code == 0
    assert len(other.requests) == 3
    assert not any("Authorization" in request for request in other.requests)
    plain_ = RecordingController(tmp_path / "payloads")
    with serving(plain_, None, tmp_path) as url:
        tree.set(controller=f"{url}/K8S01.json")
        message = "tokens and certificates are not sent over plain http (use https)"
        assert message in tree.run("apply").err
        tree.set(token_file=None)
        assert tree.run("apply").code == 0
    assert len(plain_.requests) == 1


def test_refuses_bad_urls(tree: Tree) -> None:
    """One kind of them is a URL with a password, which messages would show."""
    for url, message in {
        "https://": "is not a URL: it names no host",
        "https://a:b/": "is not a URL",
        "https://[::1/": "is not a URL",
        f"https://{'a' * 70}.example/": "https://aaa",
        "https://user:secret@127.0.0.1/": "https://(not shown)@127.0.0.1/: has a password in it",
    }.items():
        result = tree.run("apply", "-p", url)
        assert result.code == 1
        assert message in result.err
        assert "Traceback" not in result.err


# --- Without a controller ---


def test_last_good_stands_in_for_a_controller_that_fails(
    tree: Tree, controller: RecordingController
) -> None:
    """With --last-good apply uses the last good payload, warns, and ends with 0."""
    controller.behaviour = partial(plain, status=500)
    assert tree.run("apply", "--last-good").code == 1
    controller.behaviour = None
    tree.run("apply")
    controller.behaviour = partial(plain, status=500)
    before = stamps(tree.root)
    result = tree.run("apply", "--last-good")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("warning: going on with the last good payload: https://127.0.0.1:")
    assert stamps(tree.root) == before
    (tree.root / FRR).unlink()
    assert tree.run("apply", "--last-good").out == "/etc/frr/frr.conf\n"
    controller.behaviour = partial(plain, body=b"{]")
    assert tree.run("apply", "--last-good").code == 1


# --- Settings ---


def test_settings_are_checked(tree: Tree) -> None:
    """The message names each unknown setting, and each setting with an impossible value."""
    tree.settings = {}
    tree.set(controler="x", color=1, timeout="long", retries=99, ca_file="ca.pem", key_file="/key")
    result = tree.run("apply")
    place = "evpn-host: /etc/evpn-host/config.yaml"
    known = ", ".join(Config.__struct_fields__)
    assert result.code == 1
    assert result.err.splitlines() == [
        f"{place}: controler: is not a setting that is known (did you mean controller?)",
        f"{place}: color: is not a setting that is known (known are {known})",
        f"{place}: timeout: long is not a number of seconds up to 600",
        f"{place}: retries: 99 is not a whole number in 0–10",
        f"{place}: ca_file: ca.pem is not an absolute path",
        f"{place}: certificate_file and key_file stand together or not at all",
    ]
    tree.put("config.yaml", "- controller\n")
    assert "is not a list of settings, name: value" in tree.run("apply").err


def test_settings_are_documented() -> None:
    """docs/controller.md lists each setting with its default, and no other."""
    text = (Path(__file__).parents[1] / "docs/controller.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    listed = {row[0].strip("|` "): row[1].strip() for row in rows}
    defaults = {
        name: _documented(default)
        for name, default in zip(Config.__struct_fields__, Config.__struct_defaults__, strict=True)
    }
    assert {name: value for name, value in listed.items() if name in defaults} == defaults


def _documented(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float | int) else "–"


@pytest.mark.parametrize("insecure", [False, True])
def test_plain_http_leaves_this_machine_only_if_allowed(tree: Tree, insecure: bool) -> None:
    """Nobody has 192.0.2.1 (RFC 5737): if http is allowed, the try fails for another reason."""
    tree.set(controller="http://192.0.2.1/K8S01.json", insecure=insecure, timeout=1, retries=0)
    result = tree.run("apply")
    assert result.code == 1
    assert ("is plain http, in which anybody" in result.err) == (not insecure)


# --- Reports of a run ---


def access(tree: Tree, **settings: Any) -> Access:
    known = {name: tree.settings[name] for name in ("controller", "ca_file")}
    return Access(Config(**known | settings), tree.root, "K8S01")


def test_the_controller_keeps_a_report(tree: Tree, controller: RecordingController) -> None:
    """The controller keeps a report unchanged, and refuses one that is not JSON."""
    url = f"{controller.url}/K8S01.json"
    access(tree).report(url, b'{"host": "K8S01"}')
    assert json.loads((controller.folder / "reports/K8S01.json").read_bytes()) == {"host": "K8S01"}
    with pytest.raises(Unreachable, match="answers 400 Bad Request"):
        access(tree).report(url, b"{")


def test_fleet_status_reads_what_the_controller_keeps(
    tree: Tree, controller: RecordingController
) -> None:
    """A report that a host posts is a row of the table."""
    url = f"{controller.url}/racks/1/K8S01.json"
    access(tree).report(url, msgspec.json.encode(NOTHING_APPLIED))
    reports = fleet.read(controller.folder / "reports")
    assert [(host.name, host.report) for host in reports.hosts.values()] == [
        ("K8S01", "racks/1/K8S01.json")
    ]


def test_a_run_does_not_wait_for_its_report(
    tree: Tree, controller: RecordingController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that can't report warns, and succeeds all the same.

    The controller of this test would answer only after minutes.
    """
    monkeypatch.setattr("generator.controller.http.REPORT_TIMEOUT", 1.0)
    monkeypatch.setattr(Handler, "do_POST", sleeping)
    url = f"{controller.url}/{{host}}.json"
    messages: list[str] = []
    settings = Config(report=url, ca_file=str(tree.root / "etc/evpn-host/ca.pem"))
    with report.reported(settings, "K8S01", messages.append, activates=True) as run:
        run.outcome = Outcome("K8S01", 1)
    url = url.replace("{host}", "K8S01")
    rule = "did not give a whole answer within 1 s"
    assert messages == [f"warning: not reported: {url}: {rule}"]
    controller.closing.set()


@pytest.fixture
def journal_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Json]]:
    """Make a journal; the function returns the fields of its next message."""
    place = tmp_path / "journal"
    monkeypatch.setattr(journal, "SOCKET", str(place))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(place))
        sock.setblocking(False)

        def fields() -> Json:
            data, values = sock.recv(1 << 18), {}
            while data:
                name, _, data = data.partition(b"\n")
                length = int.from_bytes(data[:8], "little")
                values[name.decode()] = data[8 : 8 + length].decode()
                assert data[8 + length : 9 + length] == b"\n"
                data = data[9 + length :]
            return values

        yield fields


def test_the_journal_gets_a_message_with_fields(journal_: Callable[[], Json]) -> None:
    """A run is one message with fields; a line end in a text makes no new field."""

    def say(text: str) -> None:
        raise AssertionError(text)

    changed = ["etc/frr/frr.conf", "etc/netplan/60-evpn-host.yaml"]
    with report.reported(Config(), "K8S01", say, activates=True) as run:
        run.outcome = Outcome("K8S01", 7, changed=changed, devices=12)
    assert journal_() == {
        "MESSAGE": "K8S01: generation 7 applied: 2 files changed, 12 devices",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "evpn-host",
        "EVPN_HOST_NAME": "K8S01",
        "EVPN_HOST_GENERATION": "7",
        "EVPN_HOST_DEVICES": "12",
        "EVPN_HOST_FILES": "2",
        "EVPN_HOST_FILES_CHANGED": "/etc/frr/frr.conf\n/etc/netplan/60-evpn-host.yaml",
        "EVPN_HOST_OUTCOME": "changed",
    }
    with report.reported(Config(), "K8S01", say, activates=True) as run:
        run.outcome = Outcome("K8S01", 7, devices=12)
    message = journal_()
    assert (message["MESSAGE"], message["PRIORITY"]) == ("K8S01: generation 7 is unchanged", "7")
    with pytest.raises(ActivationFailed), report.reported(Config(), "K8S01", say, activates=True):
        raise ActivationFailed("netplan failed\nPRIORITY=0", "  it said")
    message = journal_()
    assert message["PRIORITY"] == "3"
    assert message["EVPN_HOST_OUTCOME"] == "failed"
    assert message["MESSAGE"].endswith("is active: netplan failed\nPRIORITY=0;   it said")
    with report.reported(Config(), "K8S01", say, activates=True) as run:
        run.use_last_good(Unreachable("nobody there"), lambda _: None)
        run.outcome = Outcome("K8S01", 7, devices=12)
    message = journal_()
    assert (message["EVPN_HOST_OUTCOME"], message["PRIORITY"]) == ("unreachable", "4")
    assert (
        message["MESSAGE"]
        == "the controller gives no payload, the host stays as it is: nobody there"
    )
