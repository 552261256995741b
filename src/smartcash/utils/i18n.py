"""Every text a person reads, in Indonesian and English.

Texts live in `locales/<language>.toml`, one nested table per area; code names them by a dotted key and
passes facts: `text("train.epoch_started", epoch=3)`. A missing key is an error, never a blank. A word that
depends on a count gives both its forms: `{count} {count:run|runs}`. What the command-line library says by
itself is in `locales/<language>/LC_MESSAGES/messages.po`, in gettext's form.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args

LanguageName = Literal["id", "en"]
LANGUAGES: tuple[LanguageName, ...] = get_args(LanguageName)
LOCALES = Path(__file__).with_name("locales")
SYSTEM_ERRORS = {
    os.strerror(number): name for number, name in errno.errorcode.items()
}  # what it says → its name
_chosen: str | None = None


def set_language(language: str | None) -> None:
    """Fix the language of this process ("id" or "en"); None goes back to the environment's."""
    global _chosen
    if language is not None and language not in LANGUAGES:
        raise ValueError(f"language {language!r}: choose one of {', '.join(LANGUAGES)}")
    _chosen = language


def current_language() -> str:
    """The language set by `set_language`, else `SMARTCASH_LANG`, else the system's, else English."""
    if _chosen is not None:
        return _chosen
    if (own := _language_in("SMARTCASH_LANG")) in LANGUAGES:
        return own
    system = next(filter(None, map(_language_in, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return system if system in LANGUAGES else "en"


def unknown_language() -> str:
    """What `SMARTCASH_LANG` holds where no language is chosen and that is none of ours; else ""."""
    named = _language_in("SMARTCASH_LANG")
    return os.environ["SMARTCASH_LANG"] if _chosen is None and named and named not in LANGUAGES else ""


def _language_in(variable: str) -> str:
    """The language that a variable names: id for id, ID and id_ID.UTF-8."""
    return re.split(r"[-_.@]", os.environ.get(variable, ""), maxsplit=1)[0].lower()


@cache
def catalogue(language: str) -> dict[str, str]:
    """All texts of one language, flat: dotted key → template."""
    raw = (LOCALES / f"{language}.toml").read_text(encoding="utf-8")
    flat: dict[str, str] = {}

    def walk(prefix: str, table: dict[str, Any]) -> None:
        for key, value in table.items():
            name = f"{prefix}.{key}" if prefix else key
            if isinstance(value, dict):
                walk(name, value)
            else:
                flat[name] = value

    walk("", tomllib.loads(raw))
    return flat


def text(key: str, language: str | None = None, **facts: object) -> str:
    """The text named `key` with `facts` filled in. Raises KeyError for a key that no locale has.

    A `reason` that is the operating system's ("Permission denied") is said in the language of the text."""
    language = language or current_language()
    reason = facts.get("reason")
    if isinstance(reason, str) and reason in SYSTEM_ERRORS:
        facts["reason"] = catalogue(language).get(f"system.{SYSTEM_ERRORS[reason]}", reason)
    return _FORMATTERS[language].vformat(catalogue(language)[key], (), facts)


def decimal(value: float, spec: str = "g", language: str | None = None) -> str:
    """A figure as Python's `format` writes it, with the language's decimal sign: 0.95, 0,95."""
    written = format(value, spec)
    return written.replace(".", ",") if (language or current_language()) == "id" else written


class _Words(Formatter):
    """Writes `{seconds:.1f}` with the language's decimal sign, and of `{count:run|runs}` the word that fits; a fact without
    digits to it stays as it is."""

    def __init__(self, language: str) -> None:
        self.language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        if "|" in format_spec:
            one, many = format_spec.split("|")
            return one if str(value) == "1" else many
        if isinstance(value, float) and format_spec:
            return decimal(value, format_spec, self.language)
        return format(value, format_spec)


_FORMATTERS: dict[str, _Words] = {language: _Words(language) for language in LANGUAGES}
