"""A join code: where Cloudly is and a join token, as one text that a camera reads and a person can hand on.

    baseos-join:v1?cloudly=https://cloudly.example:8443&token=bjt_...

Rules:
- It is no web address: a phone that scans it opens nothing and sends the secret nowhere.
- Values are percent-encoded where they need it; a field that is not known is ignored, another version is refused.
- It holds the join token, so whoever sees the code can enroll a device with it: nothing of it is in an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote

from pydantic import SecretStr

PREFIX = "baseos-join:"
VERSION = "v1"
TOKEN = re.compile(r"[A-Za-z0-9_-]{20,200}")
ADDRESS = re.compile(r"https?://[^\s/?#@]+")
MOST = 1000


class BadJoinCode(ValueError):
    """A text that is no join code that we can read; its words say why, without the text."""


@dataclass(frozen=True, slots=True)
class JoinCode:
    cloudly: str
    """Scheme, host and port."""
    token: SecretStr

    def text(self) -> str:
        address = quote(self.cloudly, safe=":/[]")
        token = quote(self.token.get_secret_value(), safe="")
        return f"{PREFIX}{VERSION}?cloudly={address}&token={token}"


def is_join_code(text: str) -> bool:
    """Whether it means to be one."""
    return text.lower().startswith(PREFIX)


def read_join_code(text: str) -> JoinCode:
    """Raises BadJoinCode."""
    text = text.strip()
    if not is_join_code(text) or len(text) > MOST:
        raise BadJoinCode(f"it is no join code: one begins with {PREFIX}{VERSION}?")
    version, _, query = text[len(PREFIX) :].partition("?")
    if version != VERSION:
        raise BadJoinCode(f"only join codes of version {VERSION} are known here")
    try:
        fields = parse_qs(query, strict_parsing=True, max_num_fields=20)
    except ValueError:
        raise BadJoinCode("its fields cannot be read") from None
    address, token = (" ".join(fields.get(name, [])) for name in ("cloudly", "token"))
    if ADDRESS.fullmatch(address) is None:
        raise BadJoinCode("it does not say where Cloudly is")
    if TOKEN.fullmatch(token) is None:
        raise BadJoinCode("it holds no join token")
    return JoinCode(address, SecretStr(token))
