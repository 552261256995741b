"""Texts: Indonesian and English complete and alike, and every text that the code asks for exists (A33)."""

from __future__ import annotations

import ast
import errno
import os
import re
import string
from collections.abc import Iterator
from functools import cache
from gettext import translation
from pathlib import Path

import click
import pytest

from smartcash.backend.formats.model import KINDS
from smartcash.domain import errors
from smartcash.domain.config import Part, TrainConfig, field_names
from smartcash.utils.i18n import LANGUAGES, LOCALES, catalogue, decimal, text

SOURCE = Path(errors.__file__).parents[1]
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.SmartCashError)
}


def placeholders(template: str) -> set[str]:
    """The names in {braces}; raises ValueError for a template that cannot be filled in."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@cache
def calls() -> tuple[tuple[str, str, ast.Call], ...]:
    """(place, name of what is called, the call) for every call in the package."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                found.append((f"{path.relative_to(SOURCE)}:{node.lineno}", name, node))
    return tuple(found)


def literals(node: ast.expr | None) -> Iterator[str]:
    """The strings that an argument can be: a literal, or either side of an `a if … else b`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def argument(call: ast.Call, position: int, keyword: str) -> ast.expr | None:
    """What is passed at this place or by this name."""
    if len(call.args) > position:
        return call.args[position]
    return next((given.value for given in call.keywords if given.arg == keyword), None)


def test_both_languages_have_the_same_texts() -> None:
    """A33."""
    assert set(catalogue("id")) == set(catalogue("en"))


def test_the_two_texts_of_a_key_are_filled_in_with_the_same_facts() -> None:
    """A33."""
    differing = {
        key: (placeholders(english), placeholders(catalogue("id")[key]))
        for key, english in catalogue("en").items()
        if placeholders(english) != placeholders(catalogue("id").get(key, english))
    }
    assert not differing


def test_a_word_that_depends_on_a_count_has_its_form_for_one_and_for_more() -> None:
    """A33."""
    assert [text("studio.train.changes", "en", count=count) for count in (0, 1, 2)] == [
        "0 changes", "1 change", "2 changes",
    ]  # fmt: skip
    assert text("studio.train.changes", "id", count=1) == "1 perubahan"


# facts that are never one: limits, and what is only told of several
NEVER_ONE = {
    "errors.compare_count", "errors.weights_do_not_fit", "errors.run_ambiguous", "errors.tags_too_many",
    "errors.checkpoint_size_differs", "errors.picture_too_large", "problems.tags_many", "problems.config_too_large",
    "problems.data_image_leak_alike", "problems.data_image_leak_name", "problems.data_image_alike",
    "problems.data_box_copied", "doctor.packages", "notify.late",
}  # fmt: skip
NO_NUMBERS = ("split", "confidence", "resamples", "format", "path", "target")
THINGS = (
    "run", "picture", "epoch", "batche", "processe", "core", "checkpoint", "attempt", "step", "image", "classe", "thread",
    "layer", "package", "place", "entrie", "leftover", "file", "version", "label", "minute", "second", "value", "note",
    "byte", "tag", "tensor", "pixel", "finding", "group", "change", "problem", "word", "line", "job",
)  # fmt: skip


def test_nothing_is_one_epochs() -> None:
    """A33: in English, a number of things has a word for one and one for more; in Indonesian it is the same word."""
    things = re.compile(
        rf"\{{(\w+)(?::[^}}|]*)?\}} (?!has )(?:[a-z]+ ){{0,3}}?(?:{'|'.join(THINGS)})s\b(?!/s)"
    )
    told = [
        (key, found[0])
        for key, words in catalogue("en").items()
        for found in things.finditer(re.sub(r"\{count:\|[^}]*\}?", "", words))
        if key not in NEVER_ONE and not key.startswith("cli.") and found[1] not in NO_NUMBERS
    ]
    assert told == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_blank(language: str) -> None:
    assert [key for key, words in catalogue(language).items() if not words.strip()] == []


def test_every_text_that_the_code_names_exists() -> None:
    missing = [
        f"{place}: {key}"
        for place, name, call in calls()
        if name == "text"
        for key in literals(argument(call, 0, "key"))
        if key not in catalogue("en")
    ]
    assert not missing


def test_every_text_that_the_code_names_in_part_has_one_of_that_beginning() -> None:
    """`text(f"checkpoint.kind_{kind}")`: something must begin with `checkpoint.kind_`."""
    missing = []
    for place, name, call in calls():
        first = argument(call, 0, "key") if name == "text" else None
        if isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
            beginning = str(first.values[0].value)
            if not any(key.startswith(beginning) for key in catalogue("en")):
                missing.append(f"{place}: {beginning}…")
    assert not missing


def test_the_facts_given_to_a_text_are_all_that_it_needs() -> None:
    short = []
    for place, name, call in calls():
        given = {keyword.arg for keyword in call.keywords}
        if name == "text" and None not in given:
            for key in literals(argument(call, 0, "key")):
                lacking = placeholders(catalogue("en").get(key, "")) - given
                short += [f"{place}: {key} needs {', '.join(sorted(lacking))}"] if lacking else []
    assert not short


def test_every_error_that_the_code_raises_has_its_text_and_the_facts_in_it() -> None:
    wrong = []
    for place, name, call in calls():
        if name not in ERRORS or name == "ConfigInvalid":
            continue
        given = {keyword.arg for keyword in call.keywords} | {"count"}
        for code in literals(argument(call, 0, "code")):
            template = catalogue("en").get(f"errors.{code}")
            if template is None:
                wrong.append(f"{place}: errors.{code} is missing")
            elif None not in given and (lacking := placeholders(template) - given):
                wrong.append(f"{place}: {code} needs {', '.join(sorted(lacking))}")
    assert not wrong


def test_every_problem_that_the_code_reports_has_its_text() -> None:
    at = {"Problem": 1, "add": 0, "Finding": 0, "_RuleBroken": 0}
    missing = [
        f"{place}: problems.{code}"
        for place, name, call in calls()
        if name in at
        for code in literals(argument(call, at[name], "code"))
        if (name != "add" or code.startswith("data_")) and f"problems.{code}" not in catalogue("en")
    ]
    assert not missing


def test_every_finding_has_a_heading_for_one_and_for_more() -> None:
    for language in LANGUAGES:
        for code in KINDS:
            one, more = (text(f"data.found.{code}", language, count=count) for count in (1, 3))
            assert "1" not in one and (one == more or "3" in more), (language, code, one, more)
            assert not one[0].islower() and not one.endswith((".", ":"))


def test_every_warning_that_a_training_gives_has_its_text() -> None:
    codes = {
        code for _, name, call in calls() if name == "Warned" for code in literals(argument(call, 0, "code"))
    }
    assert codes
    assert {f"warnings.{code}" for code in codes} <= set(catalogue("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_configuration_field_is_described(language: str) -> None:
    described = {key.removeprefix("config.") for key in catalogue(language) if key.startswith("config.")}
    assert described == set(field_names())


def test_the_description_of_a_field_in_the_code_is_its_english_text() -> None:
    def descriptions(part: type[Part], prefix: str) -> Iterator[tuple[str, str | None]]:
        for name, field in part.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Part):
                yield from descriptions(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name, field.description

    texts = catalogue("en")
    assert dict(descriptions(TrainConfig, "config.")) == {
        k: v for k, v in texts.items() if k[:7] == "config."
    }


def click_messages() -> Iterator[tuple[str, str | None]]:
    """What click says to a user of the command line: each message, with its plural where it has one."""
    for name in ("core", "decorators", "exceptions", "formatting", "parser", "types"):
        for node in ast.walk(ast.parse(Path(click.__file__).with_name(f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("_", "ngettext"):
                words = [word for given in node.args for word in literals(given)]
                if words and not any(word.startswith(FOR_PROGRAMMERS) for word in words):
                    yield words[0], words[1] if len(words) > 1 else None


FOR_PROGRAMMERS = (  # mistakes in the declaration of a command
    "Could not determine name", "No options defined", "Arguments take exactly", "Name '", "Boolean option", "Choice(",
)  # fmt: skip


def test_what_the_command_line_library_says_is_said_in_indonesian_with_the_same_facts() -> None:
    """A33: every message of the installed click; a version with new ones fails here."""
    indonesian = translation("messages", str(LOCALES), languages=["id"])
    messages = list(click_messages())
    assert len(messages) > 40
    for one, many in messages:
        said = indonesian.ngettext(one, many, 1) if many else indonesian.gettext(one)
        assert said not in (one, many), f"{one!r} is not translated"
        assert placeholders(said) <= placeholders(one) | placeholders(many or "")


def test_the_compiled_words_are_those_of_their_source() -> None:
    """A33: the file that gettext reads was made from the one that people edit."""
    source = (LOCALES / "id" / "LC_MESSAGES" / "messages.po").read_text("utf-8")
    compiled = translation("messages", str(LOCALES), languages=["id"])._catalog  # type: ignore[attr-defined]
    said = re.findall(r'^msgstr(?:\[0\])? "(.+)"$', source, re.MULTILINE)
    assert {ast.literal_eval(f'"{each}"') for each in said} == {v for k, v in compiled.items() if k}


# what a person can do, in the words that the texts use for it
WAYS = {
    "en":
    "Add|Ask|Begin|Bring|Check|Choose|Convert|Copy|Correct|Divide|Download|Draw|Export|Fetch|Free|Give|"
    "Go|Install|Keep|Leave|List|Look|Lower|Make|Mend|Move|Name|Nothing has to be done|Open|Prepare|Put|"
    "Raise|Redraw|Reinstall|Remove|Rename|Save|See|Send|Set|Shorten|Split|Start|Stop|Take|Try|Unpack|"
    "Update|Use|Wait|Write",
    "id":
    "Atur|Bagi|Beri|Berikan|Biarkan|Buka|Cari|Coba|Ekspor|Ekstrak|Gambar|Gambarkan|Ganti|Hapus|Hentikan|"
    "Hilangkan|Jangan|Kembalikan|Kirim|Konversikan|Kosongkan|Lanjutkan|Lihat|Mintalah|Mulai|Naikkan|"
    "Pakai|Pasang|Pastikan|Perbaiki|Perbarui|Periksa|Perkecil|Perpendek|Persingkat|Pilih|Pindahkan|Salin|"
    "Sambungkan|Sebutkan|Siapkan|Simpan|Sisakan|Tambahkan|Tidak ada yang perlu dilakukan|Tulis|Tulislah|"
    "Tunggu|Turunkan|Ubah|Unduh",
}  # fmt: skip
# or what is possible is listed, or the line to type stands there
LISTED = (
    r"\{(?:known|near|names|choices|available)\}|\bsmartcash [a-z]+|--[a-z]+|\bgit lfs pull\b|drive\.mount"
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_and_every_problem_names_a_way_out(language: str) -> None:
    """A34: what happened is half of it. A text that ends in a colon introduces problems, each with a way of its own; what
    is strange about data and no error needs none."""
    way = re.compile(rf"(?:^|[.;:,)] )(?i:{WAYS[language]})\b|{LISTED}")
    harmless = {f"problems.{code}" for code, (severity, _) in KINDS.items() if severity != "error"}
    without = [
        key
        for key, words in catalogue(language).items()
        if key.startswith(("errors.", "problems.")) and key not in harmless
        if not words.endswith(":") and not way.search(words)
    ]
    assert without == []


def test_what_the_operating_system_says_is_said_in_indonesian() -> None:
    """A33: "Permission denied" as a reason of ours; what has no translation stays as it was."""
    for number, english, indonesian in (
        (errno.EACCES, "Permission denied", "izin ditolak"),
        (errno.ENOSPC, "No space left on device", "ruang disk habis"),
        (errno.EDOM, os.strerror(errno.EDOM), os.strerror(errno.EDOM)),
    ):
        words = [
            text("errors.file", language, path="x", reason=os.strerror(number)) for language in LANGUAGES
        ]
        assert english in words[LANGUAGES.index("en")] and indonesian in words[LANGUAGES.index("id")]
    names = [key.removeprefix("system.") for key in catalogue("id") if key.startswith("system.")]
    assert set(names) <= {*errno.errorcode.values()}


def test_figures_in_words_have_the_decimal_sign_of_their_language() -> None:
    """A33: what is no figure of ours, a version or an address, stays as it is."""
    facts = {"faster": 1.25, "best": "resnet18.a1_in1k", "less": 0.5}
    assert "1,2 kali secepat resnet18.a1_in1k" in text("advice.reason.nearly_best", "id", **facts)
    assert "1.2 times as fast as resnet18.a1_in1k" in text("advice.reason.nearly_best", "en", **facts)
    assert [decimal(0.95, spec, "id") for spec in ("", ".3f", "+.1f", ".1e")] == [
        "0,95",
        "0,950",
        "+0,9",
        "9,5e-01",
    ]
    assert decimal(0.95, ".3f", "en") == "0.950"
