"""Keeps passwords out of all text that leaves the process: messages, logs, records, reports.

Whatever reads a secret (from the payload, frr.conf.local or a URL) remembers it here. Whatever
prints or stores text masks it first, because a native tool may repeat a line with a password.
"""

import re

MASKED = "(not shown)"
_LEAST = 4  # characters; a shorter secret is masked only where a line calls it a secret
# What FRR calls a secret (`neighbor … password`, `ip ospf message-digest-key … md5`, `key-string`).
_KEYWORD = r"(\b(?:password|md5|key-string|key(?![ \t]+chain\b)|secret)[ \t]+)"
_VALUE = r"(?:\d[ \t]+)?(\S.*)"
_IN_CONFIGURATION = re.compile(_KEYWORD + _VALUE)
# netplan and networkd quote the name of an unknown key, which is not a secret.
_IN_MESSAGE = re.compile(_KEYWORD + r"(?![ \t]*['\"])" + _VALUE)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^/?#\s@]*)@", re.IGNORECASE)
_known: set[str] = set()


def remember(*secrets: str | None) -> None:
    """Mask these secrets from now on."""
    _known.update(secret for secret in secrets if secret and len(secret) >= _LEAST)


def remember_in_frr(configuration: str) -> None:
    """Mask the secrets of an FRR configuration from now on."""
    for _, secret in _IN_CONFIGURATION.findall(configuration):
        remember(secret.strip(), *secret.split())


def remember_in_url(url: str) -> None:
    """Mask a URL's user and password from now on."""
    for _, login in _IN_URL.findall(url):
        remember(login, *login.split(":"))


def mask(text: str) -> str:
    """Return text without the secrets that are remembered, and without logins in URLs."""
    text = _IN_URL.sub(rf"\1{MASKED}@", text)
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASKED)
    return text


def mask_frr(text: str) -> str:
    """Return FRR's text without what its lines call a secret, and without remembered ones."""
    return mask(_IN_MESSAGE.sub(rf"\1{MASKED}", text))
