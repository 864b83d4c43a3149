"""Credentials: what they look like, and the little that is kept of them.

Rules:
- A credential has 256 bits of randomness, so its SHA-256 needs no salt and may be looked up directly.
- The node token is derived from the enrollment secret, so that the same ask gets the same token although only
  hashes and a nonce are at rest. Without the secret, which only the device has, nobody can derive it again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from interfaces.world import World, new_id, new_secret

MAX_BEARER = 256


def new_join_token(world: World) -> str:
    return "bjt_" + new_secret(world)


def new_api_token(world: World) -> str:
    return "bat_" + new_secret(world)


def new_publisher_password(world: World) -> str:
    return "bpt_" + new_secret(world)


def new_nonce(world: World) -> str:
    return new_id(world)


def fingerprint(secret: str) -> bytes:
    """What is at rest of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def derive_node_token(enrollment_secret: str, *, node_id: str, nonce: str) -> str:
    """The node token of this enrollment: the same for the same three, unguessable without the first."""
    message = b"node-token/1/" + node_id.encode() + b"/" + nonce.encode()
    mac = hmac.new(enrollment_secret.encode(), message, hashlib.sha256).digest()
    return "bnt_" + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def bearer(authorization: str | None) -> str | None:
    """The credential in an `Authorization: Bearer` header; None where there is none that could be ours."""
    if authorization is None:
        return None
    scheme, _, credential = authorization.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential or len(credential) > MAX_BEARER:
        return None
    return credential if credential.isascii() else None
