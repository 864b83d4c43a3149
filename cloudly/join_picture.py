"""A join code as a picture: for `cloudly token create --qr-file`, and the answer of the API that makes the token.

It holds the join token: whoever photographs it can enroll a device with it.
"""

from __future__ import annotations

import io

import segno

from interfaces.join_code import JoinCode

SCALE = 8
"""Pixels of a module in a PNG: some 400 across, which a phone reads from a screen and from paper."""


def picture(code: JoinCode, kind: str) -> bytes:
    """`kind`: svg or png."""
    drawn = io.BytesIO()
    segno.make_qr(code.text()).save(drawn, kind=kind, scale=SCALE)
    return drawn.getvalue()
