"""Texts from files and people, as a terminal may show them."""

from __future__ import annotations

import re

# control characters, lone surrogates and those that turn the direction of writing: they could forge a table
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: str) -> str:
    """`value` without characters that a terminal would obey; line ends and tabs stay."""
    return value if value.isprintable() else _UNPRINTABLE.sub("\ufffd", value)
