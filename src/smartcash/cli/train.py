"""`smartcash train`: one training, in the foreground, with live progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option, leads
from smartcash.utils.i18n import text


@language_option
@click.command("train", help=text("cli.train.help"), epilog=text("cli.train.example"))
@click.argument("data", required=False, default="")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help=text("cli.train.config")
)
@click.option("--backbone", help=text("cli.train.backbone"))
@click.option("--epochs", type=int, help=text("cli.train.epochs"))
@click.option("--batch-size", help=text("cli.train.batch_size"))
@click.option("--image-size", help=text("cli.train.image_size"))
@click.option("--seed", type=int, help=text("cli.train.seed"))
@click.option("--name", help=text("cli.train.name"))
@click.option("--strict", is_flag=True, help=text("cli.train.strict"))
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text("cli.train.set"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.train.home"))
@click.option("--yes", is_flag=True, help=text("cli.train.yes"))
@click.option("--background", is_flag=True, help=text("cli.train.background"))
def command(
    data: str,
    config_file: Path | None,
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
    from smartcash.domain.config import merge, parse_assignments, read_yaml
    from smartcash.domain.errors import ConfigInvalid
    from smartcash.domain.events import Event, RunStarted

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
    values: dict[str, Any] = read_yaml(config_file) if config_file else {}
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
    if review.changes and not review.first and leads():
        click.echo(text("changes.against"))
    how = confirmed_by([] if review.first else review.changes, yes) if leads() else ""
    if background:
        run = manager.apply(review, significant=True, confirmed=how)
        prepared(manager, run)
        manager.start(run)
        click.echo(text("train.in_background", run=run.id))
        return

    if leads():
        manager.confirm(review, significant=True, confirmed=how)
    with foreground() as (display, signals), turn_on(manager.home, review.config.runtime.device):
        from smartcash.worker import train

        def listen(event: Event) -> None:
            if isinstance(event, RunStarted):
                manager.started(event.folder)
            display(event)

        folder, outcome = train(review.config, manager.home, listen, signals=signals)
        display.finish(folder.path, outcome)


def _number(value: str | None) -> int | str | None:
    return int(value) if value is not None and value.lstrip("-").isdigit() else value
