"""Which node tokens a device has: the one in use, the one that is to follow, and a few of before. Pure.

Rules (docs/adr/0016):
- The one to follow is no more than drawn: it becomes the one in use only when Cloudly has its hash.
- Those of before are kept, a few, for a Cloudly that was restored from a backup and knows no newer one. To whoever
  reads the disk they give nothing that the one in use does not.
- No step loses a token that Cloudly may still take.
"""

from __future__ import annotations

from pydantic import SecretStr

from baserunner.identity import Identity, SpareToken

KEPT = 3
"""So many rotations may lie between a backup of Cloudly and its restore."""


def drawn(identity: Identity, token: SecretStr, generation: int) -> Identity:
    """With a token that is to follow. One that was to follow before was never used: it is forgotten."""
    return identity.model_copy(update={"next_token": token, "next_generation": generation})


def without_next(identity: Identity) -> Identity:
    return identity.model_copy(update={"next_token": None, "next_generation": 0})


def switched(identity: Identity) -> Identity:
    """The one that was to follow is in use."""
    if identity.next_token is None:
        return identity
    return turned(
        identity, SpareToken(token=identity.next_token, generation=identity.next_generation)
    )


def turned(identity: Identity, spare: SpareToken) -> Identity:
    """That one is in use, and the one before is kept beside it."""
    present = (
        ()
        if identity.node_token is None
        else (SpareToken(token=identity.node_token, generation=identity.token_generation),)
    )
    others = tuple(one for one in identity.former_tokens if one.token != spare.token)
    update: dict[str, object] = {
        "node_token": spare.token,
        "token_generation": spare.generation,
        "former_tokens": (*present, *others)[:KEPT],
    }
    if identity.next_token == spare.token:
        update |= {"next_token": None, "next_generation": 0}
    return identity.model_copy(update=update)
