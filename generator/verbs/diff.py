"""`evpn-host diff`: what an apply would change."""

from collections.abc import Iterator

from generator.activation import staging
from generator.desired import plan
from generator.state import changes, record
from generator.verbs.options import Options
from generator.verbs.planning import make_plan


def preview(data: bytes, options: Options) -> Iterator[str]:
    """Show what an apply would change: a unified diff of the files, then the devices that go."""
    planned, _, _ = make_plan(data, options)
    yield from changes.diff(staging.changes(options.root, planned.files))
    for device in record.removed_devices(record.read(options.root), plan.target(planned)):
        yield f"- device {device.name} ({device.kind})"
