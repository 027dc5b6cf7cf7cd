"""A small controller for trials: it offers a folder of payloads over HTTPS, and stores reports.

    python3 examples/controller.py FOLDER --certificate server.pem --key server.key [--port 8443]

GET /a/b.json returns FOLDER/a/b.json with an ETag, or 304 to a client that has it. A payload may
be a .yaml too. POST /a/b.json stores a JSON document as FOLDER/reports/a/b.json. Without a
certificate it speaks plain HTTP, on loopback only. With --token-file each request needs that bearer
token; with --client-ca each client needs a certificate of that CA. It needs only the standard
library, and serves up to a few hundred hosts.
"""

import argparse
import hashlib
import hmac
import json
import ssl
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_REPORT = 16 << 20  # bytes
REPORTS = "reports"
JSON = "application/json"


class Controller(ThreadingHTTPServer):
    """A folder of payloads, and the token that a client needs for them."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: Path, token: str = "") -> None:
        self.folder = folder.resolve()
        self.token = token
        super().__init__(address, Handler)

    def speak_tls(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Serve HTTPS from now on; with a CA, only to clients with a certificate of it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        # Each connection's thread does the handshake, so that a slow client blocks no other.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: object, client_address: tuple[str, int]) -> None:
        """Print one line that says why a connection failed."""
        del request
        print(f"{client_address[0]}: {sys.exc_info()[1]}", file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Controller
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Send a payload, or 304 when the client has it already."""
        if not self._may():
            return
        file = self._file(self.server.folder)
        if file is None or not file.is_file():
            self.answer(HTTPStatus.NOT_FOUND)
            return
        data = file.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        if tag in self.headers.get("If-None-Match", "").replace("W/", "").split(", "):
            self.answer(HTTPStatus.NOT_MODIFIED, tag=tag)
        else:
            is_yaml = file.suffix in {".yaml", ".yml"}
            self.answer(HTTPStatus.OK, data, tag, "application/yaml" if is_yaml else JSON)

    def do_POST(self) -> None:
        """Store the report of a host."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_REPORT:
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        data = self.rfile.read(int(length))
        if not self._may():
            return
        file = self._file(self.server.folder / REPORTS)
        try:
            json.loads(data)
        except ValueError:
            file = None
        if file is None:
            self.answer(HTTPStatus.BAD_REQUEST)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.new")
        partial.write_bytes(data)
        partial.replace(file)
        self.answer(HTTPStatus.NO_CONTENT)

    def answer(self, status: HTTPStatus, body: bytes = b"", tag: str = "", type_: str = "") -> None:
        """Send an answer."""
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if body:
            self.send_header("Content-Type", type_)
        if status not in (HTTPStatus.NOT_MODIFIED, HTTPStatus.NO_CONTENT):
            self.send_header("Content-Length", str(len(body)))
        if status >= HTTPStatus.BAD_REQUEST:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _may(self) -> bool:
        """Return whether the client has the token; answer 401 if it has not."""
        actual = self.headers.get("Authorization", "").encode()
        expected = f"Bearer {self.server.token}".encode()
        if self.server.token and not hmac.compare_digest(actual, expected):
            self.answer(HTTPStatus.UNAUTHORIZED)
            return False
        return True

    def _file(self, folder: Path) -> Path | None:
        """Return the file of this request's path, None when it is not below the folder."""
        names = unquote(urlsplit(self.path).path).strip("/").split("/")
        # A name must not begin with a dot: it would lead upwards, or to a partly written file.
        if any(not name or name.startswith(".") or "\0" in name for name in names):
            return None
        return folder.joinpath(*names)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--certificate", type=Path, metavar="FILE")
    parser.add_argument("--key", type=Path, metavar="FILE")
    parser.add_argument("--client-ca", type=Path, metavar="FILE")
    parser.add_argument("--token-file", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not options.certificate and options.listen not in ("127.0.0.1", "::1", "localhost"):
        parser.error("without --certificate it listens on loopback only")
    token = options.token_file.read_text().strip() if options.token_file else ""
    with Controller((options.listen, options.port), options.folder, token) as controller:
        if options.certificate:
            key = options.key or options.certificate
            controller.speak_tls(options.certificate, key, options.client_ca)
        scheme = "https" if options.certificate else "http"
        print(f"{scheme}://{options.listen}:{controller.server_port}/", flush=True)
        try:
            controller.serve_forever()
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == "__main__":
    main()
