"""Keeps passwords out of all text that leaves the process: messages, logs, records, reports.

A secret becomes known when it is read, from the payload, from frr.conf.local or from a URL. Text is
masked before it is printed or stored, because a native tool may repeat a line with a password.
"""

import re

MASKED = "(not shown)"
_LEAST = 4  # characters; a shorter secret is masked only where a line says that it is one
# FRR's words before a secret (`neighbor … password`, `ip ospf message-digest-key … md5`, …).
_KEYWORD = r"(\b(?:password|md5|key-string|key(?![ \t]+chain\b)|secret)[ \t]+)"
_VALUE = r"(?:\d[ \t]+)?(\S.*)"
_IN_CONFIGURATION = re.compile(_KEYWORD + _VALUE)
# netplan and networkd quote the name of an unknown key, which is no secret.
_IN_MESSAGE = re.compile(_KEYWORD + r"(?![ \t]*['\"])" + _VALUE)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^/?#\s@]*)@", re.IGNORECASE)
_known: set[str] = set()


def know(*secrets: str | None) -> None:
    """Mask these secrets from now on."""
    _known.update(secret for secret in secrets if secret and len(secret) >= _LEAST)


def know_those_of_frr(configuration: str) -> None:
    """Mask the secrets in a configuration of FRR from now on."""
    for _, secret in _IN_CONFIGURATION.findall(configuration):
        know(secret.strip(), *secret.split())


def know_those_of_url(url: str) -> None:
    """Mask a URL's user and password from now on."""
    for _, login in _IN_URL.findall(url):
        know(login, *login.split(":"))


def mask(text: str) -> str:
    """Return text without known secrets and without logins in URLs."""
    text = _IN_URL.sub(rf"\1{MASKED}@", text)
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASKED)
    return text


def mask_frr(text: str) -> str:
    """Return text of FRR without the secrets in its lines, and without known secrets."""
    return mask(_IN_MESSAGE.sub(rf"\1{MASKED}", text))
