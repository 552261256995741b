"""`smartcash log` and `smartcash log verify`: the operation log."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smartcash.cli import language_option
from smartcash.cli.moments import Moment, shown
from smartcash.cli.options import TargetFile, home_option, json_option
from smartcash.domain.records import OPERATIONS, Change, Operation
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.handlers.operation_log import OperationLog

COLUMNS = ("seq", "time", "who", "operation", "run", "changes", "confirmed", "result")


def _help(key: str, example: str) -> str:
    return f"{text(f'cli.log.{key}')}\n\n\b\n{text('cli.log.example')}:\n  smartcash log {example}"


@click.group("log", invoke_without_command=True, help=_help("help", "--since 7d --operation trash"))
@click.option("--run", default="", help=text("cli.log.run"))
@click.option("--operation", default="", type=click.Choice(["", *OPERATIONS]), metavar="NAME",
              help=text("cli.log.operation"))  # fmt: skip
@click.option("--since", type=Moment(), help=text("cli.log.since"))
@click.option("--export", type=TargetFile(), help=text("cli.log.export"))
@home_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    run: str,
    operation: str,
    since: datetime | None,
    export: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    ctx.obj = home
    if ctx.invoked_subcommand is not None:
        return
    if export is not None and export.suffix not in (".csv", ".json"):
        raise click.BadParameter(text("cli.log.export_suffix", path=export), param_hint="--export")
    log = _log(home)
    found = log.operations(run=_id_of(run, home), operation=operation, since=since)
    if export is not None:
        from smartcash.utils.files import write_bytes

        write_bytes(export, (_csv(found) if export.suffix == ".csv" else _as_json(found)).encode())
        click.echo(text("operation_log.exported", count=len(found), path=export))
    elif as_json:
        click.echo(_as_json(found), nl=False)
    elif not found:
        asked = run or operation or since
        click.echo(text("operation_log.none" if asked else "operation_log.empty"))
    else:
        show_operations(found)
    if log.verify().alteration is not None:
        click.echo(f"⚠ {text('operation_log.unsound')}", err=True)


command = language_option(command)


@language_option
@command.command("verify", help=_help("verify", "verify"))
@home_option
@json_option
@click.pass_obj
def verify(outer: Path | None, home: Path | None, as_json: bool) -> None:
    found = _log(home or outer).verify()
    wrong = found.alteration
    if as_json:
        facts = {"entries": found.entries, "last_sha256": found.last_sha256, "torn_bytes": found.torn_bytes}
        where = (
            None
            if wrong is None
            else {"line": wrong.line, "reason": wrong.reason, "message": wrong.message()}
        )
        click.echo(json.dumps({"sound": wrong is None, "alteration": where, **facts}, indent=2))
    elif wrong is not None:
        click.echo(f"✗ {wrong.message()}")
    else:
        click.echo(f"✓ {text('operation_log.sound', count=found.entries, sha256=found.last_sha256)}")
        if found.torn_bytes:
            click.echo(f"! {text('operation_log.torn', count=found.torn_bytes)}")
    if wrong is not None:
        raise SystemExit(1)


def _id_of(run: str, home: Path | None) -> str:
    """The id of the run that is meant; of one that is gone it must be the id itself: the log outlives its runs."""
    from smartcash.domain.errors import RunNotFound
    from smartcash.services.run_store import RunStore
    from smartcash.services.run_store import home as default_home

    if not run:
        return ""
    try:
        return RunStore(home or default_home()).find(run).id
    except RunNotFound as error:
        if error.code == "run_ambiguous":
            raise
        return run


def show_operations(operations: Sequence[Operation]) -> None:
    """Print one row per entry, or, on a terminal too narrow for a table, one paragraph. What the log holds is shown as
    it is, without markup or control characters."""
    from rich.text import Text

    from smartcash.cli.tables import is_too_wide, list_table, show_list
    from smartcash.utils.printable import plain

    table = list_table("operation_log.column", COLUMNS, whole=("seq", "run"))
    for each in operations:
        cells = (
            str(each.seq), shown(each.time), f"{each.who.user}@{each.who.host} ({each.who.interface})",
            text(f"operations.{each.operation}"), each.run or each.version, changes_text(each.changes),
            text(f"operation_log.confirmed.{each.confirmed}"), "✓" if each.result == "done" else each.result,
        )  # fmt: skip
        table.add_row(*(Text(plain(cell)) for cell in cells))
    if not is_too_wide(table):
        show_list(table)
        return
    for row in zip(*(map(str, column.cells) for column in table.columns)):
        facts = dict(zip(COLUMNS, row))
        changes = [f"\n    {line}" for line in facts.pop("changes").splitlines()]
        click.echo("  ".join(filter(None, facts.values())) + "".join(changes))


def changes_text(changes: Sequence[Change]) -> str:
    """`field: old → new`, one a line."""
    return "\n".join(f"{each.field}: {_value(each.old)} → {_value(each.new)}" for each in changes)


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _log(home: Path | None) -> OperationLog:
    from smartcash.handlers.operation_log import OperationLog
    from smartcash.services.run_store import home as default_home

    return OperationLog((home or default_home()) / "operations.jsonl", "cli")


def _as_json(operations: Sequence[Operation]) -> str:
    return json.dumps([each.to_dict() for each in operations], indent=2) + "\n"


def _csv(operations: Sequence[Operation]) -> str:
    from smartcash.cli.tables import spreadsheet_cell as cell

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["seq", "time", "user", "host", "interface", "operation", "run", "version", "changes",
                     "confirmed", "result"])  # fmt: skip
    for each in operations:
        words = (each.time, each.who.user, each.who.host, each.who.interface, each.operation, each.run, each.version,
                 changes_text(each.changes), each.confirmed, each.result)  # fmt: skip
        writer.writerow([each.seq, *map(cell, words)])
    return out.getvalue()
