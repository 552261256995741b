"""`smartcash models …`: model versions, their aliases, and what is done with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option
from smartcash.cli.moments import Moment, shown
from smartcash.cli.options import commands_of, home_option, json_option
from smartcash.domain.errors import SmartCashError
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.domain.records import ModelVersion
    from smartcash.domain.weighing import Weighing
    from smartcash.handlers.model_versions import ModelVersions, VersionReview

COLUMNS = ("version", "aliases", "name", "task", "backbone", "figure", "test", "run", "created", "tags")
SPARE = ("task", "tags", "created", "backbone", "run")  # the first to go where the terminal is narrow
EVENTS = ("time", "alias", "operation", "version", "seq")
# the first of these that a version has is shown in lists
FIGURES = ("mAP50_95", "accuracy")


@click.group("models", help=f"{text('cli.models.help')}\n\n\b\n{text('cli.models.example')}:\n"
                            "  smartcash models promote v3 --alias produksi")  # fmt: skip
def command() -> None:
    pass


command = language_option(command)

_version = click.argument("version", metavar="VERSION|RUN")
_yes = click.option("--yes", is_flag=True, help=text("cli.models.yes"))


_command = commands_of(command, json_option, home_option)


def _versions(home: Path | None) -> ModelVersions:
    from smartcash.handlers.model_versions import ModelVersions

    return ModelVersions(home, "cli")


@_command("list", "list", "list --tag baseline")
@click.option("--tag", default="", help=text("cli.models.list_tag"))
def list_(tag: str, home: Path | None, as_json: bool) -> None:
    found = [version for version in _versions(home).versions() if not tag or tag in version.tags]
    if as_json:
        click.echo(json.dumps([version.to_dict() for version in found], indent=2))
    elif not found:
        click.echo(text("models.none"))
    else:
        from rich.text import Text

        from smartcash.cli.tables import list_table, show_list
        from smartcash.utils.printable import plain

        table = list_table("models.column", COLUMNS, whole=("version", "aliases", "figure", "test", "run"))
        for version in found:
            table.add_row(*(Text(plain(_facts(version)[name])) for name in COLUMNS))
        show_list(table, [text(f"models.column.{name}") for name in SPARE])


@_command("show", "show", "show produksi")
@_version
def show(version: str, home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    found = versions.find(version)
    operations = [each for each in versions.log.operations() if each.version == found.name]
    if as_json:
        done = [each.to_dict() for each in operations]
        click.echo(json.dumps({**found.to_dict(), "operations": done}, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from smartcash.cli.log import show_operations
    from smartcash.cli.tables import show_list
    from smartcash.utils.printable import plain

    facts = Table(box=None, show_header=False)
    for key, value in _all_facts(found).items():
        if value:
            facts.add_row(Text(text(f"models.column.{key}"), style="dim"), Text(plain(value)))
    show_list(facts)
    if operations:
        click.echo(f"\n{text('runs.operations')}")
        show_operations(operations)


@_command("add", "add", "add latest")
@click.argument("sources", metavar="[RUN|CHECKPOINT]…", nargs=-1)
def add(sources: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    added: list[ModelVersion] = []
    errors: list[SmartCashError] = []
    names = sources or versions.missing()
    for name in names:  # one that cannot be added does not keep the others from it
        try:
            added.append(versions.add(name))
        except SmartCashError as error:
            click.echo(f"✗ {name}: {error}", err=True)
            errors.append(error)
    _say(added, as_json, "models.added")
    if not names and not as_json:
        click.echo(text("models.nothing_to_add"))
    if errors:
        raise SystemExit(errors[0].exit_code)


@_command("promote", "promote", "promote v3 --alias produksi")
@_version
@click.option("--alias", required=True, help=text("cli.models.alias"))
@_yes
def promote(version: str, alias: str, yes: bool, home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    number = versions.find(version).number
    changed = _confirm_and_apply(versions, versions.check_promote(number, alias), yes, as_json)
    _say([changed], as_json, "models.promoted", alias=alias)


@_command("rollback", "rollback", "rollback produksi --to v2")
@click.argument("alias")
@click.option("--to", metavar="VERSION|RUN", help=text("cli.models.to"))
@_yes
def rollback(alias: str, to: str | None, yes: bool, home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    number = None if to is None else versions.find(to).number
    changed = _confirm_and_apply(versions, versions.check_rollback(alias, number), yes, as_json)
    _say([changed], as_json, "models.rolled_back", alias=alias)


@_command("history", "history", "history produksi --at 2026-11-01")
@click.argument("alias")
@click.option("--at", type=Moment(end=True), help=text("cli.models.at"))
def history(alias: str, at: datetime | None, home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    if at is not None:
        number = versions.served(alias, at)
        name = None if number is None else f"v{number}"
        if as_json:
            click.echo(json.dumps({"alias": alias, "at": at.isoformat(), "version": name}, indent=2))
        else:
            when = shown(at.isoformat())
            click.echo(
                text("models.served", alias=alias, when=when, version=name)
                if name
                else text("models.served_none", alias=alias, when=when)
            )
        return
    events = versions.history(alias)
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps([asdict(event) for event in events], indent=2))
        return
    from smartcash.cli.tables import list_table, show_list

    table = list_table("models.event", EVENTS, whole=EVENTS)
    for event in reversed(events):
        operation = text(f"operations.{event.operation}")
        table.add_row(shown(event.time), alias, operation, f"v{event.version}", str(event.seq))
    show_list(table)


@_command("tag", "tag", "tag v3 baseline --remove draft")
@_version
@click.argument("tags", nargs=-1)
@click.option("--remove", multiple=True, help=text("cli.runs.tag_remove"))
def tag(
    version: str, tags: tuple[str, ...], remove: tuple[str, ...], home: Path | None, as_json: bool
) -> None:
    _say([_versions(home).tag(version, tags, remove)], as_json, "models.tagged")


@_command("note", "note", f'note v3 "{text("cli.models.note_example")}"')
@_version
@click.argument("notes")
def note(version: str, notes: str, home: Path | None, as_json: bool) -> None:
    _say([_versions(home).note(version, notes)], as_json, "models.noted")


@_command("lock", "lock", "lock v3")
@_version
def lock(version: str, home: Path | None, as_json: bool) -> None:
    _say([_versions(home).lock(version)], as_json, "models.locked")


@_command("unlock", "unlock", "unlock v3")
@_version
def unlock(version: str, home: Path | None, as_json: bool) -> None:
    _say([_versions(home).unlock(version)], as_json, "models.unlocked")


@_command("verify", "verify", "verify")
def verify(home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    found = versions.verify()
    if as_json:
        wrong = [{"place": f.place, "code": f.code, "message": f.message()} for f in found]
        click.echo(json.dumps({"sound": not found, "findings": wrong}, indent=2))
    else:
        for finding in found:
            click.echo(f"✗ {finding.message()}")
        if not found:
            count = len(versions.versions())
            click.echo(f"✓ {text('models.sound', count=count)}" if count else text("models.none"))
    if found:
        raise SystemExit(1)


@_command("delete", "delete", "delete v1")
@_version
@_yes
def delete(version: str, yes: bool, home: Path | None, as_json: bool) -> None:
    versions = _versions(home)
    number = versions.find(version).number
    changed = _confirm_and_apply(versions, versions.check_delete(number), yes, as_json)
    _say([changed], as_json, "models.deleted")


def _confirm_and_apply(
    versions: ModelVersions, review: VersionReview, yes: bool, quiet: bool
) -> ModelVersion:
    from smartcash.cli.confirming import confirmed_by

    if review.weighing is not None:
        _show_weighing(review.weighing, quiet)
    how = confirmed_by(review.changes, yes, significant=f"models.ask.{review.operation}", quiet=quiet)
    return versions.apply(review, significant=True, confirmed=how)


def _show_weighing(weighing: Weighing, quiet: bool) -> None:
    """The figures side by side with what they differ by, and what follows from it."""
    from rich.text import Text

    from smartcash.cli.tables import NOT_DEFINED, list_table, show_list

    table = list_table("models.weighing", [f"figure_{weighing.split}"], whole=[f"figure_{weighing.split}"])
    difference = text("models.weighing.difference")
    for head in (weighing.old, weighing.new, *([] if weighing.hindrance else [difference])):
        table.add_column(head, justify="right", no_wrap=True)
    for each in weighing.figures:
        cells = [NOT_DEFINED if value is None else f"{value:.3f}" for value in (each.old, each.new)]
        if not weighing.hindrance:
            less = each.name in weighing.worse
            shown = (
                NOT_DEFINED if each.difference is None else f"{each.difference:+.3f}{' ▼' if less else ''}"
            )
            cells.append(shown)
        table.add_row(Text(text(f"metrics.{each.name}")), *cells)
    show_list(table, stderr=quiet)
    if verdict := weighing.verdict():
        data = " --data DATA" if weighing.hindrance else ""
        measure = text("models.weighing.measure", old=weighing.old, new=weighing.new, data=data)
        hint = "" if weighing.hindrance == "task_differs" else f" {measure}"
        click.echo(f"⚠ {verdict}{hint}", err=quiet)


def _say(versions: Sequence[ModelVersion], as_json: bool, key: str, **facts: str) -> None:
    if as_json:
        click.echo(json.dumps([version.to_dict() for version in versions], indent=2))
        return
    for version in versions:
        given = {"run": version.run or version.checkpoint, "tags": ", ".join(version.tags) or "–", **facts}
        click.echo(text(key, version=version.name, **given))


def _facts(version: ModelVersion) -> dict[str, str]:
    """What a list shows of a version, by the column's name."""
    return {
        "version": f"{version.name} 🔒" if version.locked else version.name,
        "aliases": ", ".join(version.aliases),
        "name": str(version.config.get("name") or ""),
        "task": version.task,
        "backbone": version.backbone,
        "figure": _figure(version.metrics["valid"]),
        "test": _figure(version.metrics["test"]),
        "run": version.run,
        "created": shown(version.created),
        "tags": ", ".join(version.tags),
    }


def _all_facts(version: ModelVersion) -> dict[str, str]:
    """Everything about a version, by the column's name."""
    environment, images = version.environment, version.data.get("images") or {}
    return {
        **_facts(version),
        "figure": _figures(version.metrics["valid"]),
        "test": _figures(version.metrics["test"]),
        "parent": version.parent,
        "checkpoint": version.checkpoint,
        "epoch": str(version.epoch),
        "classes": ", ".join(version.classes),
        "threshold": "" if version.threshold is None else f"{version.threshold:.3f}",
        "config_hash": version.config_hash,
        "data": str(version.data.get("path", "")),
        "images": ", ".join(f"{split} {count}" for split, count in images.items()),
        "data_hash": str(version.data.get("content_hash", "")),
        "code": version.code,
        "environment": ", ".join(
            f"{k} {environment[k]}" for k in ("smartcash", "python", "host") if k in environment
        ),
        "trained": f"{shown(version.started)} – {shown(version.ended)}" if version.ended else "",
        "notes": version.notes,
        "size": f"{version.size / 1e6:.1f} MB",
        "sha256": version.sha256,
        "path": version.path,
    }


def _figure(metrics: dict[str, Any]) -> str:
    name = next((name for name in FIGURES if name in metrics), "")
    return f"{name} {metrics[name]:.3f}" if name else ""


def _figures(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
