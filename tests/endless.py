"""A controller whose answers have no end, and how much memory the command takes for each.

`python endless.py FOLDER` runs the command whose package `generator` is in FOLDER, with the
libraries of that Python, and prints `{kind: [exit code, standard error, MiB]}` as JSON. It imports
nothing of the repository, so it runs in a distribution's tree too.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LINE = b"X-A: " + b"a" * 60_000 + b"\r\n"
MIB = b"1" * (1 << 20)
# The begin of each answer, and the part that follows again and again.
ANSWERS = {
    "a status line": (b"HTTP/1.1 200 ", MIB),
    "a header": (OK + b"X-A: ", MIB),
    "headers": (OK, LINE),
    "lines of a header": (OK + b"X-A: a\r\n", b" " + b"a" * 60_000 + b"\r\n"),
    "short headers": (OK, b"A: b\r\n" * 10_000),
    "informational answers": (b"", b"HTTP/1.1 100 Continue\r\n" + LINE * 90 + b"\r\n"),
    "a chunk's size": (CHUNKED, MIB),
    "a chunk's extension": (CHUNKED + b"2;x=", MIB),
    "extensions": (CHUNKED, b"1;" + b"e" * 60_000 + b"\r\n{\r\n"),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\n", MIB),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", LINE),
    "a body": (OK + b"\r\n", MIB),
    "a body of an error": (b"HTTP/1.1 401 No\r\n\r\n", MIB),
    "chunks of an error": (CHUNKED.replace(b"200 OK", b"503 No"), MIB),
    "a body of a redirect": (b"HTTP/1.1 302 No\r\nLocation: /x\r\n\r\n", MIB),
}
# MiB that the command may take. Without an answer it takes 31, and a body may have 64.
LIMITS = dict.fromkeys(ANSWERS, 64) | {"a body": 160}
# VmHWM is of this program alone; getrusage(2) also counts the program before exec(2).
MEASURED = """
import atexit, sys
sys.path.insert(0, sys.argv.pop(1))
from generator.cli import main
atexit.register(lambda: print(open("/proc/self/status").read(), flush=True))
main()
"""


def serve(listener: socket.socket, first: bytes, more: bytes) -> None:
    """Answer each connection until its other end closes it."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection, first, more), daemon=True).start()


def answer(connection: socket.socket, first: bytes, more: bytes) -> None:
    """Read a request, and send an answer without end."""
    with connection:
        try:
            connection.recv(65536)
            connection.sendall(first)
            while True:
                connection.sendall(more)
        except OSError:
            return


def ask(folder: str, root: str, kind: str) -> tuple[int, str, int]:
    """Run the command; return its exit code, its errors, and the memory that it took (MiB)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener, *ANSWERS[kind]), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/payload"
        argv = ["diff", "--root", root, "-b", "ifupdown", "-p", url]
        result = subprocess.run(
            [sys.executable, "-c", MEASURED, folder, *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        listener.shutdown(socket.SHUT_RDWR)
    peak = re.search(r"VmHWM:\s+(\d+) kB", result.stdout)
    return result.returncode, result.stderr, int(peak[1]) >> 10 if peak else -1


def faults(output: str) -> dict[str, object]:
    """Return the faults in the output of `main`, by kind of answer."""
    answers = json.loads(output)
    assert answers.keys() == ANSWERS.keys()
    return {
        kind: (code, errors, peak)
        for kind, (code, errors, peak) in answers.items()
        if code != 2
        or "/payload: " not in errors
        or "Traceback" in errors
        or not 0 < peak < LIMITS[kind]
    }


def main() -> None:
    """Ask for each answer, two at a time."""
    with tempfile.TemporaryDirectory() as root:
        settings = Path(root, "etc/evpn-host/config.yaml")
        settings.parent.mkdir(parents=True)
        settings.write_text("timeout: 3\nretries: 0\n")
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(lambda kind: ask(sys.argv[1], root, kind), ANSWERS)
            print(json.dumps(dict(zip(ANSWERS, answers, strict=True))))


if __name__ == "__main__":
    main()
