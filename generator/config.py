"""The machine's own settings: /etc/evpn-host/config.yaml, written by its operator."""

from pathlib import Path
from typing import Literal

import msgspec

from generator.errors import Refused, printable

PATH = Path("etc/evpn-host/config.yaml")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults for what the command line leaves out."""

    controller: str | None = None  # a path or an http(s) URL
    host: str | None = None
    backend: Literal["netplan", "ifupdown"] | None = None


def load(root: Path) -> Config:
    """The settings below `root`, none where there is no file. Raises `Refused`."""
    try:
        text = (root / PATH).read_text()
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"/{PATH}: can't be read: {error}") from None
    from ruamel.yaml import YAML  # noqa: PLC0415  # only where there is a file
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return msgspec.convert(YAML(typ="safe").load(text) or {}, Config)
    except YAMLError as error:
        raise Refused(f"/{PATH}: is not YAML: {printable(str(error), 200)}") from None
    except msgspec.ValidationError as error:
        raise Refused(f"/{PATH}: {printable(str(error), 200)}") from None
