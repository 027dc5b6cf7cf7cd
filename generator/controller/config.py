"""The machine's own settings: /etc/evpn-host/config.yaml, written by its operator."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import quote

import msgspec
from msgspec import Meta

from generator.activation.backends import NAMES
from generator.desired import plain_yaml
from generator.errors import Problem, Refused, did_you_mean, printable
from generator.state import tree

PATH = Path("etc/evpn-host/config.yaml")
_MAX_BYTES, _MAX_DEPTH = 64 << 10, 8


def _rule(text: str, **limits: Any) -> Meta:
    return Meta(extra={"rule": text}, **limits)


Text = Annotated[str, _rule("is not text", min_length=1)]
File = Annotated[str, _rule("is not an absolute path", pattern="^/")]
Url = Annotated[str, _rule("is not an http(s) URL", pattern="^https?://")]
Seconds = Annotated[float, _rule("is not a number of seconds up to 600", gt=0, le=600)]
Backend = Annotated[str, _rule(f"is not {' or '.join(NAMES)}", pattern=f"^({'|'.join(NAMES)})$")]
Switch = Annotated[bool, _rule("is not true or false")]
Entries = Annotated[int, _rule("is not a whole number in 2–1000", ge=2, le=1000)]
Count = Annotated[int, _rule("is not a whole number in 0–10", ge=0, le=10)]


class Config(msgspec.Struct, frozen=True):
    """Defaults for options of the command line, and how to reach a controller."""

    controller: Text | None = None  # a path or an http(s) URL; {host} in it is this host's name
    host: Text | None = None
    backend: Backend | None = None
    ca_file: File | None = None  # PEM; replaces the system's CAs
    certificate_file: File | None = None  # PEM, for mutual TLS
    key_file: File | None = None
    token_file: File | None = None  # a bearer token
    insecure: Switch = False  # whether plain http is allowed to another machine
    connect_timeout: Seconds = 5.0
    timeout: Seconds = 30.0  # for the whole request, with failed tries and pauses
    retries: Count = 3
    guard: Seconds = 90.0  # within which all that was reachable before an apply must be so again
    guest_bgp: Switch = False  # whether guests may reach BGP and BFD of this host
    guest_nat: Switch = True  # whether NAT rules of others may translate guests' addresses
    keep: Entries = 20  # entries of the history
    report: Url | None = None  # where to send `status --json` after a run
    metrics: File | None = None  # a file for Prometheus' node exporter, rewritten by each run

    def patient(self, seconds: float) -> "Config":
        """Return the same settings, but keep trying for so many seconds."""
        return msgspec.structs.replace(self, timeout=seconds, retries=sys.maxsize)


def is_url(source: str) -> bool:
    """Whether a source is the URL of a controller."""
    return source.startswith(("http://", "https://"))


def expand(url: str, host: str) -> str:
    """Return a URL with the host's name in place of `{host}`."""
    return url.replace("{host}", quote(host, safe=""))


def hostname() -> str:
    """Return the machine's own name, without a domain."""
    return os.uname().nodename.split(".")[0]


def load(root: Path) -> Config:
    """Return the settings of a host, or the defaults if it has no file. Raises `Refused`."""
    try:
        text = tree.read(root, PATH, _MAX_BYTES).decode()
    except FileNotFoundError:
        return Config()
    except UnicodeDecodeError:
        raise Refused(f"/{PATH}: can't be read: it is not UTF-8") from None
    except OSError as error:
        raise Refused(f"/{PATH}: can't be read: {error.strerror}") from None
    raw = _parsed(text)
    return _convert({} if raw is None else raw)


def _parsed(text: str) -> Any:
    """Return the value of a plain YAML document. Raises `Refused`."""
    try:
        return plain_yaml.read(text, _settings, _MAX_DEPTH)
    except plain_yaml.NotPlain as error:
        raise Refused(f"/{PATH}: is not plain YAML: it {error}") from None
    except plain_yaml.NotYaml as error:
        raise Refused(f"/{PATH}: is not YAML: {error}") from None


def _settings(pairs: plain_yaml.Pairs) -> dict[str, Any]:
    """Return settings by name. Raises `Refused` if a name occurs twice."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise Refused(Problem(f"/{PATH}: {printable(name)}", "", "stands here more than once"))
        values[name] = value
    return values


def _convert(raw: Any) -> Config:
    if not isinstance(raw, dict):
        raise Refused(Problem(f"/{PATH}", printable(raw), "is not a list of settings, name: value"))
    fields = {field.name: field for field in msgspec.structs.fields(Config)}
    problems = []
    for name, value in raw.items():
        place = f"/{PATH}: {printable(name)}"
        if name not in fields:
            known = did_you_mean(name, fields) or f"known are {', '.join(fields)}"
            problems.append(Problem(place, "", "is not a setting that is known", known))
            continue
        try:
            msgspec.convert(value, fields[name].type)
        except msgspec.ValidationError:
            problems.append(Problem(place, printable(value), _rule_of(fields[name].type)))
    if (raw.get("certificate_file") is None) != (raw.get("key_file") is None):
        rule = "certificate_file and key_file stand together or not at all"
        problems.append(Problem(f"/{PATH}", "", rule))
    if problems:
        raise Refused(*problems)
    return msgspec.convert(raw, Config)


def _rule_of(type_: Any) -> str:
    """Return the rule of a setting's type, in words."""
    [rule] = [option for option in (type_, *get_args(type_)) if get_origin(option) is Annotated]
    return str(rule.__metadata__[0].extra["rule"])
