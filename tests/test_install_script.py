"""packaging/install.sh: how it uses its options, and that a failure leaves nothing behind.

In a Debian tree apt, dpkg, the package, openssl, the terminal and the controller are real; only
systemd does not run there. Those that end in a running VTEP are in tests/lab/test_on_and_off.py.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
import trustme

from lab.result import Result
from lab.root import Root
from tests.conftest import REPO
from tests.debs import FORGET, REPOSITORY, debs

SCRIPT = REPO / "packaging/install.sh"
# Runs a controller, runs install.sh on a terminal of its own, and types an answer when it asks.
# Before the answer it prints the settings that the script wrote, with their modes.
# Arguments: folder of payloads, file with certificate and key, answer, options of install.sh.
# URL in an option becomes the controller's address.
DRIVER = """
import os, pty, sys, threading
from pathlib import Path
sys.path.insert(0, "/opt/repo/examples")
from controller import Controller

folder, certificate, answer, *options = sys.argv[1:]
server = Controller(("127.0.0.1", 0), Path(folder))
server.speak_tls(Path(certificate), Path(certificate))
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"https://127.0.0.1:{server.server_address[1]}/{{host}}.json"
if not any("URL" in option for option in options):
    options = ["--controller", url, "--host", "K8S01", *options]
options = [option.replace("URL", url) for option in options]
argv = ["sh", "/opt/repo/packaging/install.sh", *options]
child, terminal = pty.fork()
if not child:
    os.execvp("sh", argv)
said = b""
while True:
    try:
        said += os.read(terminal, 65536)
    except OSError:  # the other end is closed
        break
    if said.endswith(b"[y/N] "):
        said += b"\\n"
        for file in sorted(Path("/etc/evpn-host").iterdir()):
            said += f"<{file.name} {file.stat().st_mode & 0o777:o}>\\n".encode() + file.read_bytes()
        os.write(terminal, answer.encode() + b"\\n")
print(said.decode(errors="replace").replace("\\r\\n", "\\n"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
# Makes the folder by which install.sh knows systemd, and NICs with the names of the example.
PREPARE = """
set -eu
mkdir -p /run/systemd/system
ip link add ens4 type veth peer name ens5
echo 'source /etc/network/interfaces.d/*' >> /etc/network/interfaces
rm -f /opt/debs/*+next*
"""
# A package whose configuration fails after it is unpacked and its dependencies are installed.
BROKEN = r"""
set -eu
cd "$(mktemp -d)"
mkdir -p broken/DEBIAN
cat > broken/DEBIAN/control <<END
Package: broken
Version: 1
Architecture: all
Depends: evpn-host
Maintainer: the tests <tests@localhost>
Description: fails when it is configured
END
printf '#!/bin/sh\nexit 1\n' > broken/DEBIAN/postinst
chmod 755 broken/DEBIAN/postinst
dpkg-deb --build broken /opt/broken.deb
"""
# A package whose command ends as a test wants it: with the number in /opt/<verb>, or else with 0.
# The removal fails while there is /opt/stay. Its next version needs one more package.
STUB = r"""
set -eu
cd "$(mktemp -d)"
mkdir -p stub/DEBIAN stub/usr/bin
cat > stub/DEBIAN/control <<END
Package: stub
Version: 1
Architecture: all
Depends: python3-ruamel.yaml
Maintainer: the tests <tests@localhost>
Description: has the command of evpn-host
END
printf '#!/bin/sh\ntest ! -e /opt/stay\n' > stub/DEBIAN/prerm
printf '#!/bin/sh\nexit "$(cat "/opt/$1" 2>/dev/null || echo 0)"\n' > stub/usr/bin/evpn-host
chmod 755 stub/DEBIAN/prerm stub/usr/bin/evpn-host
dpkg-deb --build stub "/opt/the stub.deb"
sed -i 's/^Version: 1/Version: 2/; s/^Depends: /&extra, /' stub/DEBIAN/control
dpkg-deb --build stub /opt/next.deb
mkdir -p extra/DEBIAN
sed '/^Depends/d; s/^Package: stub/Package: extra/' stub/DEBIAN/control > extra/DEBIAN/control
dpkg-deb --build extra /opt/extra.deb
"""
# Lists the files of /etc and units, our folders, and packages in any state; not apt's own files.
PICTURE = r"""
find /etc /usr/lib/systemd -type f -not -path '/etc/apt/*' -not -name ld.so.cache | sort |
    xargs -d '\n' md5sum
ls -d /etc/evpn-host /var/lib/evpn-host /usr/share/evpn-host 2>/dev/null
dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Abbrev}\n' | grep -v ' un '
"""


# The codes that verbs of evpn-host end with; what install.sh ends with, and says; what stays.
ENDS: dict[str, tuple[dict[str, int], int, str, bool]] = {
    "check 1": ({"check": 1}, 1, "the payload can't be fetched, or has problems", False),
    "diff 2": ({"diff": 2}, 1, "evpn-host diff ended with 2", False),
    "diff 139": ({"diff": 139}, 1, "evpn-host diff ended with 139", False),
    "apply 1": ({"diff": 1, "apply": 1}, 1, "going back", False),
    "apply 3": ({"diff": 1, "apply": 3}, 3, "going back", False),
    "apply 130": ({"diff": 1, "apply": 130}, 130, "going back", False),
    "apply 4": ({"diff": 1, "apply": 4}, 4, "evpn-host apply ended with 4", True),
    "apply 137": ({"diff": 1, "apply": 137}, 137, "evpn-host apply ended with 137", True),
    "no systemd": ({"diff": 1}, 4, "the host is a VTEP now, but its units", True),
    "no way back": ({"check": 1, "stay": 1}, 4, "going back failed, see above", True),
}
Options = Callable[..., Result]


class Server:
    """A tree that never had the product, and what its controller offers."""

    def __init__(self, root: Root, folder: Path) -> None:
        self.root, self.folder = root, folder
        ca = trustme.CA()
        pem = ca.cert_pem.bytes()
        self.fingerprint = sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()
        chain = ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes() + pem
        (folder / "controller.pem").write_bytes(chain)
        (folder / "payloads").mkdir()
        shutil.copy(REPO / "examples/k8s01.json", folder / "payloads/K8S01.json")
        for deb in debs().glob("*.deb"):
            shutil.copy(deb, folder)
        root.run(["sh", "-c", f"cp {folder}/*.deb /opt/debs/"])
        for script in (FORGET, PREPARE, REPOSITORY, BROKEN, STUB):
            root.run(["sh", "-c", script])
        self.before = self.picture()

    def picture(self) -> list[str]:
        return self.root.run(["sh", "-c", PICTURE], check=False).out.splitlines()

    def reset(self) -> None:
        """Remove what a test left on purpose, and check that nothing else is left."""
        packages = {line.split()[0] for line in self.picture() if line.endswith(" ii ")}
        new = packages - {line.split()[0] for line in self.before}
        self.root.run(["rm", "-rf", "/etc/evpn-host", "/var/lib/evpn-host"])
        self.root.run(["apt-get", "purge", "--yes", *sorted(new)], timeout=200)
        assert self.picture() == self.before

    def install(self, *options: str, answer: str = "") -> Result:
        """Run the script with this answer to its question; the terminal's text is in `out`."""
        places = [self.folder / "payloads", self.folder / "controller.pem"]
        return self.root.run(
            ["python3", "-c", DRIVER, *places, answer, *options], check=False, timeout=200
        )


@pytest.fixture(scope="module")
def server(root_user: None) -> Iterator[Server]:
    """Make a tree of Debian 13; a test of the lab has these failures on Debian 12 too."""
    del root_user
    with Root("trixie") as root, tempfile.TemporaryDirectory() as folder:
        yield Server(root, Path(folder))


def test_refuses_a_controller_with_another_fingerprint(server: Server) -> None:
    """It installs nothing when the controller shows no certificate with the fingerprint."""
    result = server.install("--ca-fingerprint", "00" * 32, "--yes")
    assert result.code == 1, result
    assert "shows no certificate with that fingerprint" in result.out
    assert "installing" not in result.out
    assert server.picture() == server.before


def test_the_answer_no_restores_the_server(server: Server) -> None:
    """The fingerprint selects the CA; the script shows the diff and asks its question."""
    result = server.install("--ca-fingerprint", server.fingerprint, answer="n")
    assert result.code == 1, result
    assert "+++ " in result.out
    assert "[y/N] " in result.out
    assert "you answered no" in result.out
    assert server.picture() == server.before


def test_a_failed_apply_restores_the_server(server: Server) -> None:
    """The answer yes applies. That fails, because no daemon runs here."""
    result = server.install("--ca-fingerprint", server.fingerprint.upper(), answer="yes")
    assert result.code == 3, result
    assert "you answered no" not in result.out
    assert server.picture() == server.before


def test_a_failure_of_apt_restores_the_server(server: Server) -> None:
    """One package is installed, the next one half: both go, with all that they brought."""
    packages = ["--package", "evpn-host", "--package", "/opt/broken.deb"]
    result = server.install("--ca-fingerprint", server.fingerprint, "--yes", *packages)
    assert result.code == 1, result
    assert "Setting up evpn-host" in result.out
    assert "the package can't be installed" in result.out
    assert server.picture() == server.before


def test_a_value_may_end_in_an_equals_sign(server: Server) -> None:
    """A value may end in =, as a token in base64; the setting is whole, and for root alone."""
    server.root.run(["sh", "-c", "umask 077; echo YWJjZA== > /opt/token"])
    options = ["--controller", "URL?key=YWJjZA==", "--host=K8S01", "--token-file=/opt/token"]
    result = server.install(*options, "--ca-fingerprint", server.fingerprint, answer="n")
    server.root.run(["rm", "/opt/token"])
    assert "[y/N] " in result.out, result
    assert re.search(r'<config.yaml 600>\ncontroller: "https://\S+\?key=YWJjZA=="\n', result.out)
    assert "<token 600>\nYWJjZA==\n" in result.out
    assert server.picture() == server.before


def test_a_second_run_changes_that_setting_alone(server: Server) -> None:
    """The operator's file keeps its comments, quotes and mode; all of it is back after a no."""
    text = "# ours\nhost:   'K8S01'   # the name there\ncontroller: /nowhere.json\nretries:  1\n"
    folder = "/etc/evpn-host"
    make = f"mkdir {folder}; umask 027; cat > {folder}/config.yaml; echo mine > {folder}/notes"
    server.root.run(["sh", "-c", make], input=text)
    before = server.picture()
    options = ("--controller", "URL", "--ca-fingerprint", server.fingerprint)
    result = server.install(*options, answer="n")
    after = server.picture()
    config = server.root.run(["cat", f"{folder}/config.yaml"]).out
    mode = server.root.run(["stat", "-c", "%a", f"{folder}/config.yaml"]).out
    server.root.run(["rm", "-r", folder])
    url = re.search(r'^controller: ("https://\S+")$', result.out, re.MULTILINE)
    assert url, result
    expected = text.replace("/nowhere.json", url[1]) + 'ca_file: "/etc/evpn-host/ca.pem"\n'
    assert f"<config.yaml 640>\n{expected}<notes" in result.out
    assert (config, mode) == (text, "640\n")
    assert after == before


def test_a_vtep_stays_one_if_its_package_can_not_be_installed(server: Server) -> None:
    """On a host of a wheel, the package that came stays: its removal would end the VTEP."""
    state = "/var/lib/evpn-host"
    script = f'mkdir -p {state}; echo "{{}}" > {state}/record.json'
    server.root.run(["sh", "-c", script])
    result = server.install("--ca-fingerprint", server.fingerprint, answer="n")
    record = server.root.run(["cat", f"{state}/record.json"], check=False).out
    settings = server.root.run(["ls", "-d", "/etc/evpn-host"], check=False).out
    server.reset()
    assert result.code == 1, result
    assert "these packages stay, because removing them would take this VTEP" in result.out
    assert (record, settings) == ("{}\n", "")


@pytest.mark.parametrize("case", ENDS)
def test_code_and_message_tell_every_end(server: Server, case: str) -> None:
    """Settings and package are as before, or the message says that they stay, and the code too."""
    codes, code, message, stays = ENDS[case]
    for name, number in codes.items():
        server.root.run(["sh", "-c", f"echo {number} > /opt/{name}"])
    try:
        result = server.install("--package", "/opt/the stub.deb", "--yes")
        after = server.picture()
    finally:
        server.root.run(["rm", *(f"/opt/{name}" for name in codes)])
        if stays:
            server.reset()
    assert result.code == code, result
    assert message in result.out
    assert any(line.startswith("stub ") for line in after) == stays
    assert stays or after == server.before


def test_a_package_stays_if_an_upgraded_one_needs_it(server: Server) -> None:
    """A purge of the package would remove one that was installed before."""
    server.root.run(["apt-get", "install", "--yes", "/opt/the stub.deb"], timeout=200)
    server.root.run(["sh", "-c", "echo 1 > /opt/check"])
    try:
        packages = ["--package", "/opt/next.deb", "--package", "/opt/extra.deb"]
        result = server.install(*packages, "--yes")
        after = server.picture()
    finally:
        server.root.run(["rm", "/opt/check"])
        server.reset()
    assert result.code == 1, result
    assert "these packages stay, because packages from before need them: extra" in result.out
    assert [line for line in after if line.startswith("stub ")] == ["stub 2 ii "]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Run the script with options that end it before it does anything, and no program to do it."""
    for name in ("cat", "iconv", "tr"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")

    def run(*words: str | bytes, text: bytes = SCRIPT.read_bytes()) -> Result:
        argv = ["/bin/sh", "-s", "--", *words]
        environment = {"PATH": str(tmp_path)}
        process = subprocess.run(
            argv, input=text, capture_output=True, check=False, env=environment, timeout=60
        )
        errors = process.stderr.decode(errors="replace")
        return Result(process.returncode, process.stdout.decode(), errors)

    return run


URL = ("--controller", "https://controller.example/{host}.json")
WRONG: dict[str, tuple[tuple[str | bytes, ...], str]] = {
    "unknown": ((*URL, "--frobnicate"), "--frobnicate is not an option"),
    "unknown with a value": ((*URL, "--tokenfile=x"), "--tokenfile is not an option"),
    "word": ((*URL, "now"), "now is not an option"),
    "no value": ((*URL, "--host"), "--host needs a value"),
    "empty": ((*URL, "--host", ""), "--host needs a value"),
    "empty after =": ((*URL, "--host="), "--host needs a value"),
    "option as value": ((*URL, "--host", "--yes"), "--host needs a value, and --yes looks like an"),
    "value of yes": ((*URL, "--yes=no"), "--yes takes no value"),
    "two lines": ((*URL, "--host", "a\nbackend: netplan"), "a line end or another control"),
    "bytes": ((*URL, "--host", b"\xff"), "the value is not UTF-8"),
    "path": (("--controller", "payload.json"), "payload.json is not an http(s) URL"),
    "space": (("--controller", "https://a b"), "a URL has no spaces"),
    "removal": ((*URL, "--package", "frr-"), "frr- is neither the name of a package"),
    "search": ((*URL, "--package", "frr*"), "frr* is neither the name of a package"),
    "SHA-1": ((*URL, "--ca-fingerprint", "00" * 20), "is not 64 hexadecimal digits"),
    "too long": ((*URL, "--ca-fingerprint", "00" * 3200), "is not 64 hexadecimal digits"),
    "not hexadecimal": ((*URL, "--ca-fingerprint", "0g" * 32), "is not 64 hexadecimal digits"),
    "no digits": ((*URL, "--ca-fingerprint", ":"), "is not 64 hexadecimal digits"),
    "two packages": ((*URL, "--package", "frr nano"), "frr nano is neither the name of a package"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses_options_that_it_can_not_use(options: Options, case: str) -> None:
    """It names the option, changes nothing and ends with 2."""
    words, message = WRONG[case]
    result = options(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("install.sh: ")
    assert message in result.err


def test_help_has_every_option_of_the_documentation(options: Options) -> None:
    """Both name the same; --help prints to standard output and ends with 0."""
    page = (REPO / "docs/install.md").read_text()
    page = page.partition("## With the install script")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)
    result = options(*URL, "--help")
    assert (result.code, result.err) == (0, "")
    assert re.findall(r"^  (--[a-z-]+)", result.out, re.MULTILINE) == documented


def test_does_nothing_if_the_download_is_cut_short(options: Options) -> None:
    """Wherever the script ends too early, the shell refuses all of it and does not end with 0."""
    text = SCRIPT.read_bytes().rstrip()
    lines = [match.end() for match in re.finditer(rb"\n", text)]
    middles = [(begin + end) // 2 for begin, end in pairwise(lines)]
    first = len(b"#!/bin/sh\n{ ")
    cuts = {first, *lines[1:], *middles[1:], *range(len(text) - 20, len(text))}
    assert len(cuts) > 500
    for cut in sorted(cuts):
        result = options("--help", text=text[:cut])
        assert (result.code, result.out) == (2, ""), text[:cut].decode()[-200:]
    assert options("--help", text=text).code == 0


def write_settings(
    folder: Path, prelude: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the program in the script that writes the settings, after a prelude of the test."""
    [program] = re.findall(r"<<'END'\n(import .*?)\nEND\n", SCRIPT.read_text(), re.DOTALL)
    names = ("controller", "host", "ca_file", "token_file")
    argv: list[str | Path] = [sys.executable, "-", folder]
    argv += [*(settings.get(name, "") for name in names)]
    return subprocess.run(
        argv, input=prelude + program, capture_output=True, text=True, check=False, timeout=60
    )


# The operator's file, and the file after `--host 'a "b" #c='`.
NEW = '"a \\"b\\" #c="'
EDITS = {
    "no file": (None, f"host: {NEW}\n"),
    "nothing": ("", f"host: {NEW}\n"),
    "comments": ("# ours\n", f"# ours\nhost: {NEW}\n"),
    "no line end": ("retries: 1", f"retries: 1\nhost: {NEW}\n"),
    "plain": ("host: old # why\nretries: 1\n", f"host: {NEW} # why\nretries: 1\n"),
    "quotes": ("retries: 1\n'host' : 'old'\n\n# end", f"retries: 1\n'host' : {NEW}\n\n# end"),
    "no value": ("host:\nretries: 1\n", f"host: {NEW}\nretries: 1\n"),
    "no value, comment": ("host: # ours\n", f"host: {NEW} # ours\n"),
    "lines": ("host: >-\n  old\n  one\n\nretries: 1\n", f"host: {NEW}\n\nretries: 1\n"),
    "ends of lines": ("host: old\r\nretries: 1\r\n", f"host: {NEW}\r\nretries: 1\r\n"),
    "indented": (" retries: 1\n # ours\n", f" retries: 1\n # ours\n host: {NEW}\n"),
    "markers": ("---\nretries: 1\n...\n", f"---\nretries: 1\nhost: {NEW}\n...\n"),
    "braces": ("{retries: 1} # ours\n", f"{{host: {NEW}, retries: 1}} # ours\n"),
    "in braces": ("{host: old, retries: 1}\n", f"{{host: {NEW}, retries: 1}}\n"),
    "list": ("host: a\nother: [1, {b: 2}]\n", f"host: {NEW}\nother: [1, {{b: 2}}]\n"),
}


@pytest.mark.parametrize("case", EDITS)
def test_exchanges_one_value_and_nothing_else(tmp_path: Path, case: str) -> None:
    """Comments, quotes, order and line ends of config.yaml stay, in whatever form it is."""
    before, after = EDITS[case]
    file = tmp_path / "config.yaml"
    if before is not None:
        file.write_bytes(before.encode())
    result = write_settings(tmp_path, host='a "b" #c=')
    assert (result.returncode, result.stderr) == (0, "")
    assert file.read_bytes().decode() == after
    inode = file.stat().st_ino
    assert write_settings(tmp_path, host='a "b" #c=').returncode == 0
    assert file.stat().st_ino == inode  # it was not written again


@pytest.mark.parametrize(
    "text",
    [
        "metrics: &a /a\nhost: *a\n",
        "host: a\nhost: b\n",
        "- a\n",
        "host: [\n",
        "a: 1\n---\nb: 2\n",
        "\xff",
    ],
)
def test_refuses_a_file_that_it_can_not_edit(tmp_path: Path, text: str) -> None:
    """One line says that a file can't be edited, and the file stays."""
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode("latin-1"))
    result = write_settings(tmp_path, host="b")
    assert result.returncode == 1
    assert result.stderr.startswith(f"install.sh: {file}: ")
    assert "Traceback" not in result.stderr
    assert file.read_bytes() == text.encode("latin-1")


def test_refuses_a_link_in_place_of_the_settings(tmp_path: Path) -> None:
    """A link in place of the settings is refused: its target could not be restored."""
    (tmp_path / "elsewhere").write_text("host: a\n")
    (tmp_path / "config.yaml").symlink_to("elsewhere")
    result = write_settings(tmp_path, host="b")
    assert result.returncode == 1
    assert "is not a regular file" in result.stderr
    assert (tmp_path / "elsewhere").read_text() == "host: a\n"


# Prints the mode of each file that is opened to be written, before anything is in it.
PRINT_MODES = """
import os
os.umask(0)
fdopen = os.fdopen
def printing(descriptor, *arguments):
    print(f"{os.fstat(descriptor).st_mode & 0o777:o}", os.fstat(descriptor).st_size)
    return fdopen(descriptor, *arguments)
os.fdopen = printing
"""


def test_secrets_are_for_root_alone_from_the_first_instant(tmp_path: Path) -> None:
    """Files are created with mode 0600, also with umask 0. A URL with a query may have a token."""
    token = tmp_path / "token-file"
    token.write_text("YWJj=\n")
    file = tmp_path / "config.yaml"
    for url, mode in (("https://c/a", 0o644), ("https://c/?key=x=", 0o600)):
        file.write_text("retries: 1\n")
        file.chmod(0o644)
        result = write_settings(tmp_path, PRINT_MODES, controller=url, token_file=str(token))
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == "600 0\n600 0\n"
        assert file.stat().st_mode & 0o777 == mode
        assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "token").read_text() == "YWJj=\n"
    file.unlink()
    assert write_settings(tmp_path, PRINT_MODES, host="a").stdout == "600 0\n"
    assert file.stat().st_mode & 0o777 == 0o600
