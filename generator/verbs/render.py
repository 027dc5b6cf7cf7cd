"""`evpn-host render`: the files of hosts in a folder."""

from pathlib import Path

from generator.desired import plan
from generator.desired.payload import Payload
from generator.state import files


def render(payload: Payload, host: str | None, backend: str, output: Path) -> None:
    """Write the files of a host below a folder, or of each host of a Fleet below one of its own."""
    single = payload.kind == "Host" or host is not None
    for each in [payload.host(host)] if single else payload.hosts:
        base = "" if single else f"{each.name}/"
        for path, text in plan.make(each, backend).files.items():
            files.write_plain(output, f"{base}{path}", text.encode(), plan.mode(path))
