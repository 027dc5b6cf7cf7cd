"""Says why a controller gave no payload, in words that an operator understands."""

import re
import ssl
from http import HTTPStatus
from typing import Any

from generator.errors import printable

_OVERLOADED = {408, 425, 429}  # try again later (RFC 9110, 8470, 6585)
# OpenSSL's X509_V_ERR numbers, and what they mean to an operator.
_UNTRUSTED = "its certificate is not of a CA that is trusted here"
_OTHER_NAME = "its certificate is for another name or address"
_CERTIFICATE = {
    9: "its certificate is not valid yet, or this machine's clock is slow",
    10: "its certificate has expired, or this machine's clock is fast",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}

NOT_HTTP = "sends an answer that is not HTTP"
# urllib3's exceptions by name, the more specific ones first.
_NETWORK = {
    "ConnectTimeoutError": "can't be reached: no answer",
    "ReadTimeoutError": "did not answer in time",
    "LineTooLong": NOT_HTTP,
    "IncompleteRead": "ended its answer too early",
    "InvalidChunkLength": "ended its answer too early",
    "ProtocolError": "ended the connection without an answer",
}


class Failed(Exception):
    """A try that failed."""

    def __init__(self, rule: str, hint: str = "", *, again: bool = False, after: float = 0) -> None:
        super().__init__(rule)
        self.rule, self.hint = rule, hint
        self.again = again  # whether another try may succeed
        self.after = after  # seconds that the controller asks to wait


def refusal(answer: Any, *, authorised: bool) -> Failed:
    """Return the failure that an answer's status means."""
    status: int = answer.status
    try:
        reply = f"the controller answers {status} {HTTPStatus(status).phrase}"
    except ValueError:
        reply = f"the controller answers {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        rule = "it rejects this host's token" if authorised else "it wants a token"
        return Failed(f"{reply}: {rule}", "" if authorised else "token_file in config.yaml")
    if status == HTTPStatus.FORBIDDEN:
        return Failed(f"{reply}: this host may not have it")
    if status == HTTPStatus.NOT_FOUND:
        return Failed(f"{reply}: it has nothing under this address")
    if status in _OVERLOADED or status >= 500:
        after = answer.headers.get("Retry-After", "")
        seconds = float(after) if re.fullmatch(r"[0-9]{1,5}", after) else 0
        rule = "it has an internal error" if status >= 500 else "it asks to try again later"
        return Failed(f"{reply}: {rule}", again=True, after=seconds)
    return Failed(f"{reply}, which is no payload")


def translated(error: Exception) -> Failed:
    """Return a failure of the network or of TLS in words."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause)
    names = {type(cause).__name__ for cause in causes}
    if "CertificateError" in names:
        return Failed(_OTHER_NAME)
    through = "the proxy " if "ProxyError" in names else ""
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return Failed(f"{through}can't be reached: {printable(cause.strerror)}", again=True)
    for name, rule in _NETWORK.items():
        if name in names:
            return Failed(through + rule, again=True)
    return Failed(printable(str(error)))


def _of_tls(error: ssl.SSLError) -> Failed:
    if isinstance(error, ssl.SSLCertVerificationError):
        rule = _CERTIFICATE.get(error.verify_code, f"its certificate: {error.verify_message}")
        return Failed(rule, "ca_file in config.yaml" if rule == _UNTRUSTED else "")
    if isinstance(error, ssl.SSLEOFError):
        return Failed("TLS: ended the connection", again=True)
    reason = error.reason or str(error)
    if "CERTIFICATE_REQUIRED" in reason:
        return Failed("it wants a certificate of this host", "certificate_file, key_file")
    return Failed(f"TLS: {printable(reason.lower().replace('_', ' '))}")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception, those inside it, and those that caused it; each once."""
    causes: list[BaseException] = []
    left: list[Any] = [error]
    while left:
        each = left.pop(0)
        if isinstance(each, BaseException) and not any(each is other for other in causes):
            causes.append(each)
            left += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]
    return causes
