"""Write the reference pages anew from the code: python docs/make_reference.py

docs/<language>/configuration.md from TrainConfig, commands.md from the commands, errors.md and findings.md
from the texts. A test fails when they are not what this script writes. Command texts are made when their
module is imported, so each language is written by a process of its own.
"""

from __future__ import annotations

import argparse
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from smartcash.backend.formats.model import KINDS
from smartcash.cli import COMMANDS
from smartcash.domain.config import Part, TrainConfig
from smartcash.utils.i18n import LANGUAGES, catalogue, set_language, text

WORDS = {
    "en": {
        "generated": "Written by `docs/make_reference.py` from the code; changes made here are lost.",
        "configuration": "Configuration",
        "configuration_intro": (
            "Every setting of a training. Write them in a YAML file (`smartcash train --config FILE`), or give "
            "one by its name with `--set section.field=value`; `--set` wins over the named options, and those "
            "over the file. An unknown name or a value out of range is refused before anything starts, and all "
            "problems are listed at once. The `config.yaml` of a run holds every field with the value that was "
            "used, with nothing left on `auto`; `asked.yaml` beside it holds [what was asked for](training.md#train-again)."
        ),
        "top": "Top level",
        "field": "Field",
        "type": "Value",
        "default": "Default",
        "meaning": "Meaning",
        "int": "whole number",
        "float": "number",
        "str": "text",
        "CallbackConfig": "[callbacks](training.md#callbacks)",
        "list": "list of {}",
        "unset": "none",
        "preset": "from the preset",
        "or": "or",
        "length": "at most {} characters",
        "commands": "Commands",
        "commands_intro": (
            "All commands with all their options. `smartcash COMMAND --help` shows the same. `--lang id` or the "
            "variable `SMARTCASH_LANG=id` switches to Indonesian; `python -m smartcash` is the same as "
            "`smartcash`."
        ),
        "exit_codes": "Exit codes",
        "exit_table": {
            "0": "done",
            "1": "failed, or a check found something",
            "2": "wrong usage, or an invalid configuration or data set",
            "3": "not confirmed",
            "130": "interrupted with Ctrl-C, after a checkpoint was saved",
            "143": "stopped by the system, after a checkpoint was saved",
        },
        "option": "Option",
        "argument": "Argument",
        "required": "required",
        "repeatable": "may be given again",
        "several": "one or more",
        "optional": "optional",
        "flag": "switch",
        "path": "path",
        "errors": "Errors",
        "errors_intro": (
            "Every error by its code. The code stays the same whatever the language; in Python it is "
            "`SmartCashError.code`. ‹Angle marks› stand for what is filled in."
        ),
        "code": "Code",
        "message": "Message",
        "problems": "Problems in a configuration",
        "problems_intro": "A refused configuration lists them all, each behind the name of its field.",
        "warnings": "Warnings while training",
        "findings": "Strange files and labels",
        "findings_intro": (
            "What SmartCash does with each strange thing in a data set. `smartcash data check DATA` lists them "
            "with file, line and value. With `--strict`, errors and warnings stop the command or the training; "
            "notes never do."
        ),
        "found": "Finding",
        "severity": "Severity",
        "done": "What happens",
        "groups": {"image": "Pictures", "label": "Labels and classes", "box": "Boxes", "whole": "The whole set"},
    },
    "id": {
        "generated": "Ditulis oleh `docs/make_reference.py` dari kodenya; perubahan di sini akan hilang.",
        "configuration": "Konfigurasi",
        "configuration_intro": (
            "Semua pengaturan sebuah training. Tulis dalam berkas YAML (`smartcash train --config BERKAS`), atau "
            "sebut satu per satu dengan `--set bagian.kolom=nilai`; `--set` mengalahkan opsi bernama, dan opsi "
            "bernama mengalahkan berkas. Nama yang tidak dikenal atau nilai di luar batas ditolak sebelum apa pun "
            "dimulai, dan semua masalah ditampilkan sekaligus. `config.yaml` sebuah run memuat semua pengaturan "
            "dengan nilai yang benar-benar dipakai, tanpa `auto`; `asked.yaml` di sampingnya memuat "
            "[yang diminta](training.md#melatih-lagi)."
        ),
        "top": "Tingkat teratas",
        "field": "Pengaturan",
        "type": "Nilai",
        "default": "Bawaan",
        "meaning": "Arti",
        "int": "bilangan bulat",
        "float": "bilangan",
        "str": "teks",
        "CallbackConfig": "[callback](training.md#callback)",
        "list": "daftar {}",
        "unset": "tidak ada",
        "preset": "dari preset",
        "or": "atau",
        "length": "paling banyak {} karakter",
        "commands": "Perintah",
        "commands_intro": (
            "Semua perintah dengan semua opsinya. `smartcash PERINTAH --help` menampilkan hal yang sama. "
            "`--lang id` atau variabel `SMARTCASH_LANG=id` memilih bahasa Indonesia; `python -m smartcash` sama "
            "dengan `smartcash`."
        ),
        "exit_codes": "Kode keluar",
        "exit_table": {
            "0": "selesai",
            "1": "gagal, atau pemeriksaan menemukan sesuatu",
            "2": "salah pakai, atau konfigurasi atau set data tidak sah",
            "3": "tidak dikonfirmasi",
            "130": "dihentikan dengan Ctrl-C, setelah checkpoint disimpan",
            "143": "dihentikan sistem, setelah checkpoint disimpan",
        },
        "option": "Opsi",
        "argument": "Argumen",
        "required": "wajib",
        "repeatable": "boleh diulang",
        "several": "satu atau lebih",
        "optional": "boleh kosong",
        "flag": "sakelar",
        "path": "jalur",
        "errors": "Kesalahan",
        "errors_intro": (
            "Semua kesalahan menurut kodenya. Kode tetap sama apa pun bahasanya; di Python ada di "
            "`SmartCashError.code`. ‹Tanda kurung sudut› berarti bagian yang diisi."
        ),
        "code": "Kode",
        "message": "Pesan",
        "problems": "Masalah dalam konfigurasi",
        "problems_intro": "Konfigurasi yang ditolak menampilkan semuanya, masing-masing di belakang nama pengaturannya.",
        "warnings": "Peringatan selama training",
        "findings": "Berkas dan label yang janggal",
        "findings_intro": (
            "Apa yang dilakukan SmartCash dengan setiap kejanggalan dalam set data. `smartcash data check DATA` "
            "menampilkannya dengan berkas, baris, dan nilainya. Dengan `--strict`, kesalahan dan peringatan "
            "menghentikan perintah atau training; catatan tidak pernah."
        ),
        "found": "Temuan",
        "severity": "Tingkat",
        "done": "Yang terjadi",
        "groups": {"image": "Gambar", "label": "Label dan kelas", "box": "Kotak", "whole": "Seluruh set data"},
    },
}  # fmt: skip


# ---------------------------------------------------------------- Markdown


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines)


def prose(raw: str) -> str:
    """Plain words as Markdown: what would be markup is escaped, line ends become blanks."""
    return re.sub(r"([*_`\[\]<>#])", r"\\\1", " ".join(raw.split()))


def template(raw: str) -> str:
    """A text with its {names} shown as ‹name›; of words that fit a count, those for many."""
    many = re.sub(r"\{\w+:[^{}|]*\|([^{}]*)\}", r"\1", raw)
    named = re.sub(r"(?<!\{)\{(\w+)[^{}]*\}(?!\})", r"‹\1›", many)
    return prose(named.replace("{{", "{").replace("}}", "}"))


def code(value: object) -> str:
    return f"`{value}`"


# ---------------------------------------------------------------- configuration


def configuration(words: dict[str, Any]) -> str:
    """One table per section of TrainConfig."""
    sections: dict[str, list[list[str]]] = {}
    for name, field in fields_of(TrainConfig):
        section, _, leaf = name.rpartition(".")
        row = [code(leaf), values_of_type(field, words), default_of(field, name, words)]
        sections.setdefault(section, []).append([*row, prose(text(f"config.{name}"))])
    parts = [f"# {words['configuration']}", words["configuration_intro"]]
    for section in sorted(sections, key=list(sections).index):
        parts.append(f"## {code(section) if section else words['top']}")
        parts.append(
            table([words["field"], words["type"], words["default"], words["meaning"]], sections[section])
        )
    return "\n\n".join(parts)


def fields_of(part: type[Part], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field with its dotted name, in order."""
    for name, field in part.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Part):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def values_of_type(field: FieldInfo, words: dict[str, Any]) -> str:
    """The choices or the kind of value, with its bounds."""
    kinds = [described(kind, words) for kind in alternatives(field.annotation)]
    return " ".join([f" {words['or']} ".join(kinds), *bounds(field, words)])


def alternatives(kind: Any) -> list[Any]:
    """The members of a union, without None, which a default says."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [member for member in members if member is not type(None)]


def described(kind: Any, words: dict[str, Any]) -> str:
    if get_origin(kind) is Literal:
        return " · ".join(code(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        return words["list"].format(words[first.__name__]) + ("" if rest[0] is ... else f" ({len(rest) + 1})")
    return "`true` · `false`" if kind is bool else words[kind.__name__]


def bounds(field: FieldInfo, words: dict[str, Any]) -> list[str]:
    """The limits that pydantic or one of config.py's own checks puts on a value."""
    signs = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
    found = []
    for limit in field.metadata:
        if type(limit) in signs:
            name, sign = signs[type(limit)]
            found.append(f"{sign} {grouped(getattr(limit, name))}")
        elif isinstance(limit, MaxLen):
            found.append(words["length"].format(grouped(limit.max_length)))
        elif isinstance(limit, AfterValidator):
            within = inspect.getclosurevars(limit.func).nonlocals
            if "low" in within:
                found.append(f"{grouped(within['low'])} … {grouped(within['high'])}")
    return [f"({', '.join(found)})"] if found else []


def grouped(number: float) -> str:
    """Thousands apart by narrow blanks, which both languages read alike."""
    return f"{number:,}".replace(",", "\u202f")


def default_of(field: FieldInfo, name: str, words: dict[str, Any]) -> str:
    value = field.default
    if value is None:
        return words["preset"] if name.startswith("augment.") else words["unset"]
    if value in ("", ()):
        return words["unset"]
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(list(value) if isinstance(value, tuple) else value)


# ---------------------------------------------------------------- commands


def commands(words: dict[str, Any]) -> str:
    parts = [f"# {words['commands']}", words["commands_intro"]]
    for module in COMMANDS.values():
        command = import_module(f"smartcash.cli.{module}").command
        parts += section_of(command, "smartcash", 2, words)
    parts += [f"## {words['exit_codes']}", table([words["code"], words["meaning"]], [
        [code(number), meaning] for number, meaning in words["exit_table"].items()
    ])]  # fmt: skip
    return "\n\n".join(parts)


def section_of(command: click.Command, parent: str, level: int, words: dict[str, Any]) -> list[str]:
    """Heading, help, example and options of a command, then of the commands in it."""
    whole = f"{parent} {command.name}"
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option) and p.opts != ["--lang"]]
    help_text, _, example = (
        f"{command.help or ''}\n\n{command.epilog if is_example(command.epilog) else ''}".partition(
            f"{text('cli.checkpoint.example')}:"
        )
    )
    parts = [
        f"{'#' * level} {whole}",
        *(prose(p) for p in help_text.replace("\b", "").split("\n\n") if p.strip()),
    ]
    if command.epilog and not is_example(command.epilog):
        parts.append(prose(command.epilog))
    inner = [
        part
        for each in (command.commands.values() if isinstance(command, click.Group) else ())
        for part in section_of(each, whole, level + 1, words)
    ]
    if isinstance(command, click.Group) and not command.invoke_without_command:
        return parts + inner
    usage = " ".join([whole, *(usage_of(argument) for argument in arguments), "[OPTIONS]" if options else ""])
    parts.append(f"```text\n{usage.strip()}\n```")
    if example.strip():
        parts.append(f"{text('cli.checkpoint.example')}:\n\n```sh\n{example.strip()}\n```")
    if options:
        rows = [[named(o), kind_of(o, words), option_default(o, words), prose(o.help or "")] for o in options]
        parts.append(table([words["option"], words["type"], words["default"], words["meaning"]], rows))
    return parts + inner


def is_example(epilog: str | None) -> bool:
    return bool(epilog) and epilog.startswith(f"{text('cli.checkpoint.example')}:")


def usage_of(argument: click.Argument) -> str:
    name = (argument.name or "").upper() + ("…" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def named(option: click.Option) -> str:
    return ", ".join(code(name) for name in [*option.opts, *option.secondary_opts])


def kind_of(option: click.Option, words: dict[str, Any]) -> str:
    kind = option.type
    if option.is_flag:
        shown = words["flag"]
    elif isinstance(kind, click.Choice):
        shown = " · ".join(code(choice) for choice in kind.choices)
    elif isinstance(kind, click.IntRange | click.FloatRange):
        limits = [
            f"≥ {kind.min}" if kind.min is not None else "",
            f"≤ {kind.max}" if kind.max is not None else "",
        ]
        number = words["int" if isinstance(kind, click.IntRange) else "float"]
        shown = f"{number} ({', '.join(filter(None, limits))})"
    elif isinstance(kind, click.Path):
        shown = words["path"]
    else:
        shown = code(option.metavar) if option.metavar else words[{"integer": "int"}.get(kind.name, "str")]
    return f"{shown}, {words['repeatable']}" if option.multiple else shown


def option_default(option: click.Option, words: dict[str, Any]) -> str:
    if option.required:
        return words["required"]
    if option.secondary_opts:
        return code(option.opts[0] if option.default else option.secondary_opts[0])
    return code(option.default) if option.show_default and not option.is_flag else "–"


# ---------------------------------------------------------------- errors and findings


def errors(words: dict[str, Any], language: str) -> str:
    texts = catalogue(language)

    def rows(area: str) -> list[list[str]]:
        found = [(key.removeprefix(area), value) for key, value in texts.items() if key.startswith(area)]
        return [
            [code(key), template(value)] for key, value in found if not (area == "problems." and key in KINDS)
        ]

    head = [words["code"], words["message"]]
    return "\n\n".join(
        [
            f"# {words['errors']}", words["errors_intro"], table(head, rows("errors.")),
            f"## {words['problems']}", words["problems_intro"], table(head, rows("problems.")),
            f"## {words['warnings']}", table(head, rows("warnings.")),
        ]
    )  # fmt: skip


def findings(words: dict[str, Any], language: str) -> str:
    texts = catalogue(language)
    groups: dict[str, list[list[str]]] = {group: [] for group in words["groups"]}
    for name, (severity, done) in KINDS.items():
        found = text(f"data.found.{name}", count=1)
        row = [code(name), prose(found), texts[f"data.severity.{severity}"], texts[f"data.done.{done}"]]
        groups[group_of(name)].append([*row, template(texts[f"problems.{name}"])])
    head = [words["code"], words["found"], words["severity"], words["done"], words["message"]]
    parts = [f"# {words['findings']}", words["findings_intro"]]
    for group, rows in groups.items():
        parts += [f"## {words['groups'][group]}", table(head, rows)]
    return "\n\n".join(parts)


def group_of(name: str) -> str:
    """Which table of the page a finding belongs to."""
    kind = name.split("_")[1]
    if kind in ("image", "box"):
        return kind
    of_labels = {"label", "line", "class", "classes", "polygon", "crowd", "no"}
    if kind == "size":
        return "box"
    return "label" if kind in of_labels and name != "data_class_starved" else "whole"


# ---------------------------------------------------------------- writing


def write_pages(out: Path, language: str) -> None:
    """All reference pages of the language of this process."""
    words = WORDS[language]
    pages = {
        "configuration": configuration(words),
        "commands": commands(words),
        "errors": errors(words, language),
        "findings": findings(words, language),
    }
    folder = out / language
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pages.items():
        (folder / f"{name}.md").write_text(f"<!-- {words['generated']} -->\n\n{content}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference pages anew.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder with en and id")
    parser.add_argument("--language", choices=LANGUAGES, help="only this one")
    given = parser.parse_args()
    if given.language:
        set_language(given.language)
        write_pages(given.out, given.language)
        return
    for language in LANGUAGES:
        subprocess.run([sys.executable, __file__, "--out", given.out, "--language", language], check=True)


if __name__ == "__main__":
    main()
