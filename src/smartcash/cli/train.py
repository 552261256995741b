"""`smartcash train`: one training, in the foreground, with live progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option, leads
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.handlers.training_manager import Review


@language_option
@click.command("train", help=text("cli.train.help"), epilog=text("cli.train.example"))
@click.argument("data", required=False, default="")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help=text("cli.train.config"))
@click.option("--backbone", help=text("cli.train.backbone"))
@click.option("--epochs", type=int, help=text("cli.train.epochs"))
@click.option("--batch-size", metavar="N|auto", help=text("cli.train.batch_size"))
@click.option("--image-size", metavar="N|auto", help=text("cli.train.image_size"))
@click.option("--seed", type=int, help=text("cli.train.seed"))
@click.option("--name", help=text("cli.train.name"))
@click.option("--strict", is_flag=True, help=text("cli.train.strict"))
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text("cli.train.set"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.train.home"))
@click.option("--yes", is_flag=True, help=text("cli.train.yes"))
@click.option("--background", is_flag=True, help=text("cli.train.background"))
def command(
    data: str,
    config_path: Path | None,
    backbone: str | None,
    epochs: int | None,
    batch_size: str | None,
    image_size: str | None,
    seed: int | None,
    name: str | None,
    strict: bool,
    assignments: tuple[str, ...],
    home: Path | None,
    yes: bool,
    background: bool,
) -> None:
    from smartcash.domain.config import merge, parse_assignments
    from smartcash.domain.errors import ConfigInvalid
    from smartcash.domain.events import Event, RunStarted
    from smartcash.services.run_store import settings_in

    named: list[tuple[str, Any]] = [
        ("data.path", data or None),
        ("data.batch_size", _number(batch_size)),
        ("data.image_size", _number(image_size)),
        ("data.strict", strict or None),
        ("model.backbone", backbone),
        ("training.epochs", epochs),
        ("seed", seed),
        ("name", name),
    ]
    values: dict[str, Any] = settings_in(config_path, home) if config_path else {}
    if leads() and config_path and _is_settled(config_path):
        click.echo(text("train.settled", folder=config_path.parent))
    for key, value in named:
        if value is not None:
            section, _, field = key.rpartition(".")
            values = merge(values, {section: {field: value}} if section else {field: value})
    from smartcash.cli.confirming import confirmed_by
    from smartcash.cli.running import backbone_problems, foreground, prepared, turn_on
    from smartcash.handlers.training_manager import TrainingManager

    manager = TrainingManager(home, interface="cli", try_backbone=backbone_problems)
    review = manager.check(merge(values, parse_assignments(assignments)))
    if review.config is None or review.problems:
        raise ConfigInvalid(review.problems)
    if leads():
        click.echo(_based_on(review, manager.home))
    how = confirmed_by([] if review.first else review.changes, yes) if leads() else ""
    if leads():
        manager.require_current(review)
    if background:
        run = manager.apply(review, significant=True, confirmed=how)
        prepared(manager, run)
        manager.start(run)
        click.echo(text("train.in_background", run=run.id))
        return

    with foreground() as (display, signals), turn_on(manager.home, review.config.runtime.device):
        from smartcash.worker import train

        def listen(event: Event) -> None:
            if isinstance(event, RunStarted):
                manager.started(event.folder, review, how)
            display(event)

        folder, outcome = train(review.config, manager.home, listen, signals=signals)
        display.finish(folder.path, outcome)


def _is_settled(path: Path) -> bool:
    """Whether a file holds what a run was settled to, with what was asked for beside it."""
    return path.name == "config.yaml" and (path.parent / "asked.yaml").exists()


def _based_on(review: Review, home: Path) -> str:
    """What the settings are compared with, before the differences are listed."""
    if review.first:
        return text("train.first", home=home)
    key = "train.differs" if review.changes else "train.same"
    return text(key if review.against else f"{key}_saved", run=review.against)


def _number(value: str | None) -> int | str | None:
    return int(value) if value is not None and value.lstrip("-").isdigit() else value
