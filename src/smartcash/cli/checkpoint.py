"""`smartcash checkpoint …`: look at, check and keep checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import commands_of, models_home_option
from smartcash.domain.errors import CheckpointNotFound, RunNotFound
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.handlers.checkpoint import CheckpointManager


@click.group("checkpoint", help=text("cli.checkpoint.help"))
def command() -> None:
    pass


command = language_option(command)

_folder = click.argument("folder", metavar="RUN|FOLDER")
_file = click.argument("file", type=click.Path(path_type=Path))
_files = click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
_json = click.option("--json", "as_json", is_flag=True, help=text("cli.checkpoint.json"))


_command = commands_of(command)


def _weights(named: str) -> Path:
    """A folder of checkpoints: the one named, or that of the run with this folder, id (or the beginning of it), or name;
    "latest" is the newest."""
    from smartcash.services.run_store import find_run

    folder = Path(named)
    if not folder.is_dir():
        try:
            folder = find_run(named).path
        except RunNotFound as error:
            if error.code == "run_ambiguous":
                raise
            raise CheckpointNotFound("checkpoint_folder_unknown", path=named) from error
    weights = folder / "weights"
    return weights if (folder / "run.json").is_file() and weights.is_dir() else folder


def _manager(folder: Path) -> CheckpointManager:
    """The manager of a folder that exists: looking never makes one."""
    from smartcash.handlers.checkpoint import CheckpointManager

    if not folder.is_dir():
        raise CheckpointNotFound("checkpoint_folder_missing", path=str(folder))
    return CheckpointManager(folder)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@_command("list", "list", "list latest --kind best")
@_folder
@click.option("--backbone", help=text("cli.checkpoint.list_backbone"))
@click.option("--dataset", help=text("cli.checkpoint.list_dataset"))
@click.option("--min-epoch", type=int, help=text("cli.checkpoint.list_min_epoch"))
@click.option("--kind", type=click.Choice(["best", "latest", "epoch"]), help=text("cli.checkpoint.list_kind"))
@_json
@models_home_option
def list_(
    folder: str,
    backbone: str | None,
    dataset: str | None,
    min_epoch: int | None,
    kind: str | None,
    as_json: bool,
) -> None:
    manager = _manager(_weights(folder))
    if (backbone, dataset, min_epoch, kind) == (None, None, None, None):
        infos = manager.list_checkpoints()
    else:
        infos = manager.filter_checkpoints(backbone, dataset, min_epoch, kind=kind)
    if as_json:
        _print_json([info.to_dict() for info in infos])
    else:
        manager.display_checkpoints(infos)


@_command("show", "show", "show runs/detect/RUN/weights/FILE.pth")
@_file
@_json
def show(file: Path, as_json: bool) -> None:
    facts = _manager(file.parent).extract_metadata(file)
    if as_json:
        _print_json(facts)
    else:
        for key, value in facts.items():
            click.echo(f"{key}: {value}")


def _tell(info: dict[str, Any]) -> None:
    """What a whole file is: one of SmartCash, or one that only its own program knows what to do with."""
    click.echo(f"{'✅' if info['smartcash'] else '⚠️'} {info['path']}: {info['message']}")


@_command("validate", "validate", "validate runs/detect/RUN/weights/*.pth")
@_files
@_json
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    results = [_manager(file.parent).validate_checkpoint(file) for file in files]
    if as_json:
        _print_json([{"valid": valid, **info} for valid, info in results])
    else:
        for valid, info in results:
            if valid:
                _tell(info)
            else:
                click.echo(f"{'⚠️' if info['code'] == 'checkpoint_foreign' else '❌'} {info['message']}")
    if not all(valid for valid, _ in results):
        raise SystemExit(1)


@_command("best", "best", "best latest")
@_folder
@click.option("--which", default="best", show_default=True, help=text("cli.checkpoint.best_which"))
@models_home_option
def best(folder: str, which: str) -> None:
    if which not in ("best", "latest") and not which.isdecimal():
        raise click.BadParameter("best, latest, 0, 1, 2, …", param_hint="--which")
    weights = _weights(folder)
    path = _manager(weights).get_checkpoint_path(int(which) if which.isdecimal() else which)
    if path is None:
        code = "checkpoint_no_epoch" if which.isdecimal() else "checkpoint_none"
        raise CheckpointNotFound(code, folder=str(weights), epoch=which)
    click.echo(path)


@_command("cleanup", "cleanup", "cleanup latest --max 3")
@_folder
@click.option("--max", "max_checkpoints", default=5, show_default=True, type=click.IntRange(min=0),
              help=text("cli.checkpoint.cleanup_max"))  # fmt: skip
@click.option("--max-epochs", default=5, show_default=True, type=click.IntRange(min=0),
              help=text("cli.checkpoint.cleanup_max_epochs"))  # fmt: skip
@click.option("--keep-best/--no-keep-best", default=True, help=text("cli.checkpoint.cleanup_keep_best"))
@click.option("--keep-latest/--no-keep-latest", default=True, help=text("cli.checkpoint.cleanup_keep_latest"))
@_json
@models_home_option
def cleanup(
    folder: str, max_checkpoints: int, max_epochs: int, keep_best: bool, keep_latest: bool, as_json: bool
) -> None:
    from smartcash.services.labels import refuse_if_locked

    weights = _weights(folder)
    refuse_if_locked(weights.absolute().parent)
    gone = _manager(weights).cleanup_checkpoints(max_checkpoints, keep_best, keep_latest, max_epochs)
    if as_json:
        _print_json([str(path) for path in gone])
    else:
        click.echo(text("cli.checkpoint.cleanup_done", count=len(gone)))


@_command("copy", "copy", "copy latest /content/drive/MyDrive/SmartCash")
@_folder
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--all", "all_", is_flag=True, help=text("cli.checkpoint.copy_all"))
@_json
@models_home_option
def copy(folder: str, target: Path, all_: bool, as_json: bool) -> None:
    copied = _manager(_weights(folder)).copy_to_drive(target, best_only=not all_)
    if as_json:
        _print_json([str(path) for path in copied])
    else:
        click.echo(text("cli.checkpoint.copy_done", count=len(copied), target=str(target)))


@_command("export-history", "export_history", "export-history latest history.json")
@_folder
@click.argument("target", type=click.Path(path_type=Path), required=False)
@models_home_option
def export_history(folder: str, target: Path | None) -> None:
    path = _manager(_weights(folder)).export_history_to_json(target)
    click.echo(text("cli.checkpoint.export_done", path=str(path)))


@_command("doctor", "doctor", "doctor latest --adopt")
@_folder
@click.option("--adopt", is_flag=True, help=text("cli.checkpoint.doctor_adopt"))
@_json
@models_home_option
def doctor(folder: str, adopt: bool, as_json: bool) -> None:
    report = _manager(_weights(folder)).doctor(adopt=adopt)
    if as_json:
        _print_json(report)
    else:
        click.echo(f"{report['folder']} ({'rw' if report['writable'] else 'r-'})")
        for row in report["damaged"]:
            click.echo(f"❌ {row['name']}: {row['reason']} → {row['moved_to']}")
        for name in report["unverified"]:
            click.echo(f"• {name}: {text('checkpoint.state_unverified')}")
        click.echo(report["summary"])
        if not (report["good"] or report["unverified"] or report["damaged"]):
            click.echo(f"! {text('checkpoint.doctor_nothing')}")
        elif report["healthy"]:
            click.echo(f"✅ {text('checkpoint.doctor_healthy')}")
    if report["damaged"]:
        raise SystemExit(1)


doctor.epilog = text("cli.checkpoint.doctor_help")


@_command("import", "import", "import OLD.pth --into runs/detect/RUN/weights")
@_file
@click.option("--into", required=True, type=click.Path(path_type=Path), help=text("cli.checkpoint.dir"))
@click.option("--i-trust-this-file", "trusted", is_flag=True, help=text("cli.checkpoint.import_yes"))
def import_(file: Path, into: Path, trusted: bool) -> None:
    from smartcash.cli.confirming import asked, refuse
    from smartcash.handlers.checkpoint import CheckpointManager

    if not trusted and not asked(text("cli.checkpoint.import_confirm", path=str(file))):
        refuse("cli.checkpoint.import_refused")
    manager = CheckpointManager(into)
    path = manager.import_untrusted(file)
    click.echo(text("cli.checkpoint.import_done", path=path))
    _tell(manager.validate_checkpoint(path)[1])
