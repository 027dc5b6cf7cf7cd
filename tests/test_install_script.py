"""packaging/install.sh in a Debian tree, in the cases where it must leave nothing behind.

apt, dpkg, the package, openssl, the terminal and the controller are real; only systemd does not run
there. The cases that end in a running VTEP are in tests/lab/test_on_and_off.py.
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import trustme

from lab.result import LabUnavailable, Result
from lab.root import Root
from tests.conftest import REPO, unavailable
from tests.debs import FORGET, REPOSITORY, debs

# Runs a controller, runs install.sh on a terminal of its own, and types an answer when it asks.
# Arguments: folder of payloads, file with certificate and key, answer, options of install.sh.
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
argv = ["sh", "/opt/repo/packaging/install.sh", "--controller", url, "--host", "K8S01", *options]
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
        os.write(terminal, answer.encode() + b"\\n")
        said += b"\\n"
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
# Lists the files of /etc and units, our folders, and packages in any state; not apt's own files.
PICTURE = r"""
find /etc /usr/lib/systemd -type f -not -path '/etc/apt/*' -not -name ld.so.cache | sort |
    xargs -d '\n' md5sum
ls -d /etc/evpn-host /var/lib/evpn-host /usr/share/evpn-host 2>/dev/null
dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Abbrev}\n' | grep -v ' un '
"""


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
        for script in (FORGET, PREPARE, REPOSITORY, BROKEN):
            root.run(["sh", "-c", script])
        self.before = self.picture()

    def picture(self) -> list[str]:
        return self.root.run(["sh", "-c", PICTURE], check=False).out.splitlines()

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
    try:
        with Root("trixie") as root, tempfile.TemporaryDirectory() as folder:
            yield Server(root, Path(folder))
    except LabUnavailable as reason:
        unavailable(str(reason))


def test_refuses_a_controller_with_another_fingerprint(server: Server) -> None:
    """It installs nothing when the controller shows no certificate with the fingerprint."""
    done = server.install("--ca-fingerprint", "00" * 32, "--yes")
    assert done.code == 1, done
    assert "shows no certificate with that fingerprint" in done.out
    assert "installing" not in done.out
    assert server.picture() == server.before


def test_the_answer_no_restores_the_server(server: Server) -> None:
    """The fingerprint selects the CA; the script shows the diff and asks its question."""
    done = server.install("--ca-fingerprint", server.fingerprint, answer="n")
    assert done.code == 1, done
    assert "+++ " in done.out
    assert "[y/N] " in done.out
    assert "you said no" in done.out
    assert server.picture() == server.before


def test_a_failed_apply_restores_the_server(server: Server) -> None:
    """The answer yes applies. That fails, because no daemon runs here."""
    done = server.install("--ca-fingerprint", server.fingerprint.upper(), answer="yes")
    assert done.code == 3, done
    assert "you said no" not in done.out
    assert server.picture() == server.before


def test_a_failure_of_apt_restores_the_server(server: Server) -> None:
    """One package is installed, the next one half: both go, with all that they brought."""
    packages = ["--package", "evpn-host", "--package", "/opt/broken.deb"]
    done = server.install("--ca-fingerprint", server.fingerprint, "--yes", *packages)
    assert done.code == 1, done
    assert "Setting up evpn-host" in done.out
    assert "the package can't be installed" in done.out
    assert server.picture() == server.before
