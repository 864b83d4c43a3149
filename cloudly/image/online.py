"""Whether a device with that config.json would reach Cloudly: trusting what the device would."""

from __future__ import annotations

import ssl

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloudly.image.check import Finding

WITHIN_S = 10.0


def reach(url: str, root_ca: x509.Certificate | None) -> list[Finding]:
    """Cloudly's own health, and what the host asks to set its clock."""
    context = httpx.create_ssl_context(trust_env=False)
    if root_ca is not None:
        pem = root_ca.public_bytes(serialization.Encoding.PEM).decode()
        context.load_verify_locations(cadata=pem)
    with httpx.Client(verify=context, timeout=WITHIN_S, trust_env=False) as client:
        found = [_asked(client, url, "/healthz", 200)]
        if found[0].verdict == "ok":
            found.append(_asked(client, url, "/connectivity-check", 204))
    return found


def _asked(client: httpx.Client, url: str, path: str, wanted: int) -> Finding:
    try:
        answer = client.get(url + path, follow_redirects=False)
    except httpx.HTTPError as error:
        return Finding("bad", path, _why(error), "is Cloudly up, and does its address lead there?")
    if answer.status_code != wanted:
        seen = f"answered {answer.status_code}, not {wanted}"
        return Finding("bad", path, seen, "is this Cloudly, or something in between?")
    return Finding(
        "ok", path, f"answered {wanted}" + (", trusted" if url.startswith("https") else "")
    )


def _why(error: BaseException) -> str:
    """The certificate's trouble by OpenSSL's own word; else what kind of error it was."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {inner.verify_message}"
        inner = inner.__cause__ or inner.__context__
    return f"cannot be reached: {type(error).__name__}"
