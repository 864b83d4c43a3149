"""Who gave an order and why, in words that can be kept and compared.

Rules:
- One person, one name: spaces, letter case and look-alike forms of one character do not make another person of it.
- A name, a reason and a note are one printable line each; they are shown in tables and pages.
- A credential that was pasted into one is taken out before it is kept.
- A name is a word, not a proof: who may reach the data directory may write any. Tokens of the API prove roles.
"""

from __future__ import annotations

import unicodedata

from cloudly.logs import redact
from cloudly.problems import BadOrder

LONGEST_NAME = 100
LONGEST_TEXT = 500


def person(by: str) -> str:
    """The name as it is kept. Raises BadOrder."""
    name = " ".join(unicodedata.normalize("NFKC", by).split())
    if not name:
        raise BadOrder("say who orders it, with --by: it is kept with what was ordered")
    if not name.isprintable():
        raise BadOrder(f"the name {name!a} holds characters that nobody sees: leave them out")
    if len(name) > LONGEST_NAME:
        raise BadOrder(f"the name is {len(name)} characters long; at most {LONGEST_NAME}")
    return name


def key(name: str) -> str:
    """Equal for two ways to write one person."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def reason(text: str, order: str) -> str:
    """A reason that somebody will ask for. Raises BadOrder."""
    if not text.strip():
        raise BadOrder(f"{order}: say why, with --reason; whoever meets it will ask")
    return note(text, "reason")


def note(text: str, what: str = "note") -> str:
    """One printable line, or nothing. Raises BadOrder."""
    line = redact(" ".join(text.split()))
    if not line.isprintable():
        raise BadOrder(f"the {what} holds characters that nobody sees: leave them out")
    if len(line) > LONGEST_TEXT:
        raise BadOrder(f"the {what} is {len(line)} characters long; at most {LONGEST_TEXT}")
    return line
