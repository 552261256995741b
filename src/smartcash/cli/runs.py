"""`smartcash runs …`: list runs, look at them, put them in order."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option
from smartcash.cli.moments import Moment, shown
from smartcash.cli.options import commands_of, home_option, json_option
from smartcash.domain.records import Change, RunFilter, RunInfo
from smartcash.utils.i18n import catalogue, text
from smartcash.utils.printable import plain

if TYPE_CHECKING:
    from smartcash.domain.ports import CommandName
    from smartcash.handlers.run_history import RunHistory
    from smartcash.handlers.training_manager import TrainingManager
    from smartcash.services.run_store import RunFolder

# those of the run store, which a command must not load for its --help
SORTS = (
    "id",
    "name",
    "task",
    "state",
    "backbone",
    "dataset",
    "epochs",
    "best",
    "started",
    "ended",
    "elapsed",
)
COLUMNS = ("id", "name", "state", "task", "backbone", "epochs", "best", "started", "tags")
SPARE = ("task", "tags", "backbone", "started")  # the first to go where the terminal is narrow
STATES = tuple(key.removeprefix("runs.state.") for key in catalogue("en") if key.startswith("runs.state."))
FILES = ("asked.yaml", "config.yaml", "run.json", "events.jsonl", "epochs.csv", "train.log", "weights",
         "previews", "exports", "report")  # fmt: skip
_MARKS = {"finished": "green", "running": "cyan", "paused": "cyan", "failed": "red", "broken": "red"}
_BOUND = re.compile(r"\s*([\w.-]+?)\s*(>=|<=|>|<|=)\s*(-?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*")


@click.group("runs", help=text("cli.runs.help"))
def command() -> None:
    pass


command = language_option(command)

_runs = click.argument("runs", nargs=-1, required=True, metavar="RUN…")
_run = click.argument("run", metavar="RUN")


_command = commands_of(command, json_option, home_option)


def _history(home: Path | None) -> RunHistory:
    from smartcash.handlers.run_history import RunHistory
    from smartcash.services.run_store import home as default_home

    return RunHistory(home or default_home(), "cli")


@_command("list", "list", 'list --state finished --where "mAP50>=0.8" --sort -best')
@click.option("--state", default="", type=click.Choice(["", *STATES]), metavar="STATE",
              help=text("cli.runs.list_state", states=", ".join(STATES)))  # fmt: skip
@click.option("--task", default="", type=click.Choice(["", "detect", "classify"]), metavar="TASK",
              help=text("cli.runs.list_task"))  # fmt: skip
@click.option("--backbone", default="", help=text("cli.runs.list_backbone"))
@click.option("--dataset", default="", help=text("cli.runs.list_dataset"))
@click.option("--tag", default="", help=text("cli.runs.list_tag"))
@click.option("--where", multiple=True, metavar="METRIC>=VALUE", help=text("cli.runs.list_where"))
@click.option("--since", type=Moment(), help=text("cli.runs.list_since"))
@click.option("--until", type=Moment(end=True), help=text("cli.runs.list_until"))
@click.option("--search", default="", help=text("cli.runs.list_search"))
@click.option("--sort", default="-id", show_default=True, type=click.Choice([s + n for n in SORTS for s in ("", "-")]),
              metavar="FIELD", help=text("cli.runs.list_sort"))  # fmt: skip
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(min=1), help=text("cli.runs.list_limit")
)
@click.option(
    "--offset", default=0, show_default=True, type=click.IntRange(min=0), help=text("cli.runs.list_offset")
)
@click.option("--trashed", is_flag=True, help=text("cli.runs.list_trashed"))
@click.option("--rebuild", is_flag=True, help=text("cli.runs.list_rebuild"))
def list_(
    state: str,
    task: str,
    backbone: str,
    dataset: str,
    tag: str,
    where: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    search: str,
    sort: str,
    limit: int,
    offset: int,
    trashed: bool,
    rebuild: bool,
    home: Path | None,
    as_json: bool,
) -> None:
    _manager(home).service.settle()  # a worker that died since shows as crashed
    wanted = RunFilter(state, task, backbone, dataset, tag, search, _bounds(where), since, until)
    store = _history(home).store
    if rebuild:
        store.rebuild()
    found = (store.trashed if trashed else store.runs)(wanted, sort=sort)
    page = found[offset : offset + limit]
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in page], indent=2))
    elif not found:
        conditions = wanted != RunFilter()
        click.echo(text("runs.none_match" if conditions else "runs.trash_none" if trashed else "runs.none"))
    else:
        _print_table(page)
        if len(page) < len(found):
            click.echo(text("runs.more", shown=len(page), count=len(found)))


@_command("show", "show", "show latest")
@_run
def show(run: str, home: Path | None, as_json: bool) -> None:
    history = _history(home)
    _manager(home).service.settle()
    found = history.store.find(run)
    operations = history.log.operations(run=found.id)
    files = [str(path) for name in FILES if (path := Path(found.path) / name).exists()]
    if as_json:
        done = [operation.to_dict() for operation in operations]
        click.echo(json.dumps({**found.to_dict(), "files": files, "operations": done}, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from smartcash.cli.log import show_operations
    from smartcash.cli.tables import show_list

    facts = Table(box=None, show_header=False)
    for key, value in _facts(found).items():
        if value:
            facts.add_row(Text(text(f"runs.column.{key}"), style="dim"), Text(plain(value)))
    for number, name in enumerate(files):
        facts.add_row(Text("" if number else text("runs.files"), style="dim"), Text(plain(name)))
    show_list(facts)
    if operations:
        click.echo(f"\n{text('runs.operations')}")
        show_operations(operations)


@_command("tag", "tag", "tag latest baseline --remove draft")
@_run
@click.argument("tags", nargs=-1)
@click.option("--remove", multiple=True, help=text("cli.runs.tag_remove"))
def tag(run: str, tags: tuple[str, ...], remove: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    changed = _history(home).tag(run, tags, remove)
    _say([changed], as_json, lambda each: text("runs.tagged", run=each.id, tags=", ".join(each.tags) or "–"))


@_command("note", "note", f'note latest "{text("cli.runs.note_example")}"')
@_run
@click.argument("notes")
def note(run: str, notes: str, home: Path | None, as_json: bool) -> None:
    _say([_history(home).note(run, notes)], as_json, lambda each: text("runs.noted", run=each.id))


@_command("lock", "lock", "lock latest")
@_runs
def lock(runs: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    _each(runs, _history(home).lock, as_json, lambda each: text("runs.locked", run=each.id))


@_command("unlock", "unlock", "unlock latest")
@_runs
def unlock(runs: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    _each(runs, _history(home).unlock, as_json, lambda each: text("runs.unlocked", run=each.id))


@_command("trash", "trash", "trash 20261101-0810")
@_runs
def trash(runs: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    _each(runs, _history(home).trash, as_json, lambda each: text("runs.trashed", run=each.id))


@_command("restore", "restore", "restore 20261101-0810")
@_runs
def restore(runs: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    _each(
        runs, _history(home).restore, as_json, lambda each: text("runs.restored", run=each.id, path=each.path)
    )


@_command("empty-trash", "empty", "empty-trash")
@click.option("--yes", is_flag=True, help=text("cli.runs.empty_yes"))
def empty_trash(yes: bool, home: Path | None, as_json: bool) -> None:
    from smartcash.cli.confirming import confirmed_by

    history = _history(home)
    shown = history.store.trashed()
    changes = [Change(each.id, plain(each.path), None) for each in shown]
    how = confirmed_by(changes, yes, ask="cli.runs.empty_confirm", quiet=as_json)
    # what was put into the trash meanwhile was not agreed to
    gone = history.empty_trash(how, {each.id for each in shown}) if shown else []
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in gone], indent=2))
    else:
        click.echo(text("runs.emptied", count=len(gone)))


@_command("watch", "watch", "watch latest")
@_run
def watch(run: str, home: Path | None, as_json: bool) -> None:
    manager = _manager(home)
    folder = manager.find(run)  # once: another run may be the latest by the end
    if as_json:
        for record in manager.watch(folder):
            click.echo(json.dumps(record))
        return
    from smartcash.cli.progress import TrainingDisplay
    from smartcash.domain.events import from_record

    try:
        with TrainingDisplay() as display:
            for record in manager.watch(folder):
                event = from_record(record)
                if event is not None:
                    display(event)
    except KeyboardInterrupt:
        click.echo(text("runs.left", run=folder.id))
        return
    facts = manager.result(folder)
    click.echo(text("runs.ended", run=facts["id"], state=_state(str(facts["state"]))))
    display.tell_version()
    if facts["state"] == "crashed":
        click.echo(text("runs.crashed_hint", run=facts["id"] if home is None else folder.path))
    if facts.get("error"):
        click.echo(str(facts["error"]), err=True)


@_command("start", "start", "start latest")
@_run
def start(run: str, home: Path | None, as_json: bool) -> None:
    _act(home, run, as_json, lambda manager, folder: manager.start(folder))


@_command("pause", "pause", "pause latest")
@_run
def pause(run: str, home: Path | None, as_json: bool) -> None:
    _act(home, run, as_json, lambda manager, folder: manager.command(folder, "pause"))


@_command("continue", "continue", "continue latest")
@_run
def continue_(run: str, home: Path | None, as_json: bool) -> None:
    _act(home, run, as_json, lambda manager, folder: manager.command(folder, "continue"))


@_command("stop", "stop", "stop latest --keep-best")
@_run
@click.option("--after-epoch", "when", flag_value="stop_after_epoch", help=text("cli.runs.stop_after_epoch"))
@click.option("--keep-best", "when", flag_value="keep_best", help=text("cli.runs.stop_keep_best"))
def stop(run: str, when: CommandName | None, home: Path | None, as_json: bool) -> None:
    _act(home, run, as_json, lambda manager, folder: manager.command(folder, when or "stop"))


@_command("change", "change", "change latest --epochs 40 --patience 10 --threads 1")
@_run
@click.option("--epochs", type=click.IntRange(1, 100_000), help=text("cli.runs.change_epochs"))
@click.option("--patience", type=click.IntRange(0, 100_000), help=text("cli.runs.change_patience"))
@click.option("--threads", type=click.IntRange(1, 1024), help=text("cli.runs.change_threads"))
@click.option("--yes", is_flag=True, help=text("cli.train.yes"))
def change(
    run: str,
    epochs: int | None,
    patience: int | None,
    threads: int | None,
    yes: bool,
    home: Path | None,
    as_json: bool,
) -> None:
    from smartcash.cli.confirming import confirmed_by
    from smartcash.domain.changes import changes_between
    from smartcash.domain.config import merge, nested
    from smartcash.domain.ports import CHANGED

    given: dict[CommandName, int | None] = {"epochs": epochs, "patience": patience, "threads": threads}

    def act(manager: TrainingManager, folder: RunFolder) -> None:
        own = folder.config()
        wanted: dict[str, Any] = {}
        for name, value in given.items():
            if value is not None:
                wanted = merge(wanted, nested(CHANGED[name], value))
        how = confirmed_by(changes_between(own, own.replaced(**wanted)), yes, quiet=as_json)
        for name, value in given.items():
            if value is not None:
                manager.command(folder, name, value, confirmed=how)

    _act(home, run, as_json, act)


def _manager(home: Path | None) -> TrainingManager:
    from smartcash.handlers.training_manager import TrainingManager

    return TrainingManager(home, interface="cli")


AT_WORK = ("running", "paused")


def _act(
    home: Path | None, run: str, as_json: bool, act: Callable[[TrainingManager, RunFolder], None]
) -> None:
    """Do something with a run that is or will be trained, and say how it stands."""
    manager = _manager(home)
    folder = manager.find(run)  # once: "latest" may be another one a moment later
    act(manager, folder)
    state = manager.state(folder)
    click.echo(
        json.dumps({"run": folder.id, "state": state})
        if as_json
        else text(f"runs.{'asked' if state in AT_WORK else 'now'}", run=folder.id, state=_state(state))
    )


def _state(state: str) -> str:
    return text(f"runs.state.{state}")


def _each(
    names: Sequence[str], act: Callable[[str], RunInfo], as_json: bool, words: Callable[[RunInfo], str]
) -> None:
    """Every run in turn; the first that is refused ends it, with its error."""
    done: list[RunInfo] = []
    try:
        for name in names:
            done.append(act(name))
    finally:
        _say(done, as_json, words)


def _say(runs: Sequence[RunInfo], as_json: bool, words: Callable[[RunInfo], str]) -> None:
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in runs], indent=2))
    else:
        for run in runs:
            click.echo(words(run))


def _bounds(where: Sequence[str]) -> dict[str, tuple[float | None, float | None]]:
    """Least and most of each metric; > and < leave the limit itself out, which is the next number beyond it."""
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for value in where:
        parts = _BOUND.fullmatch(value)
        if parts is None:
            raise click.BadParameter(text("cli.log.bound_wrong", value=value), param_hint="--where")
        name, sign, limit = parts[1], parts[2], float(parts[3])
        least, most = bounds.get(name, (None, None))
        if sign in (">=", "=", ">"):
            low = math.nextafter(limit, math.inf) if sign == ">" else limit
            least = low if least is None else max(least, low)
        if sign in ("<=", "=", "<"):
            high = math.nextafter(limit, -math.inf) if sign == "<" else limit
            most = high if most is None else min(most, high)
        bounds[name] = least, most
    return bounds


def _print_table(runs: Sequence[RunInfo]) -> None:
    from rich.text import Text

    from smartcash.cli.tables import list_table, show_list

    table = list_table("runs.column", COLUMNS, whole=("id", "started"))
    for run in runs:
        facts, style = _facts(run), _MARKS.get(run.state, "")
        table.add_row(*(Text(facts[name], style=style if name == "state" else "") for name in COLUMNS))
    show_list(table, [text(f"runs.column.{name}") for name in SPARE])


def _facts(run: RunInfo) -> dict[str, Any]:
    """A run's facts in words, by the column's name."""
    named = f"runs.state.{run.state}"
    best = "" if run.best_value is None else f"{run.monitor} {run.best_value:.4g}".strip()
    broken = run.state == "broken" or run.reason == "labels"
    return {
        "id": f"{run.id} 🔒" if run.locked else run.id,
        "name": run.name,
        "state": text(named) if named in catalogue("en") else run.state,
        "task": run.task,
        "backbone": run.backbone,
        "dataset": run.dataset,
        "epochs": f"{run.epochs_done}/{'–' if run.epochs is None else run.epochs}",
        "best": best,
        "started": shown(run.started),
        "ended": shown(run.ended),
        "elapsed": "" if run.elapsed_s is None else f"{run.elapsed_s:.0f} s",
        "tags": ", ".join(run.tags),
        "notes": run.notes,
        "parent": run.parent,
        "reason": text(f"runs.broken.{run.reason}", detail=run.detail)
        if broken
        else run.detail or run.reason,
        "path": run.path,
    }
