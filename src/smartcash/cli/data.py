"""`smartcash data …`: draw, check, split and preview data sets."""

from __future__ import annotations

from pathlib import Path

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text


@click.group("data", help=text("cli.data.help"))
def command() -> None:
    pass


command = language_option(command)


@language_option
@command.command("sample", help=text("cli.data.sample.help"))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help=text("cli.data.sample.out"),
)
@click.option("--images", default=400, show_default=True, help=text("cli.data.sample.images"))
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help=text("cli.data.sample.seed"),
)
@click.option(
    "--task",
    default="detect",
    show_default=True,
    type=click.Choice(["detect", "classify"]),
    help=text("cli.data.sample.task"),
)
@click.option(
    "--size",
    "size_px",
    default=320,
    show_default=True,
    type=click.IntRange(96, 2048),
    help=text("cli.data.sample.size"),
)
def sample(out: Path, images: int, seed: int, task: str, size_px: int) -> None:
    from smartcash.backend.samples import write_samples

    summary = write_samples(out, images=images, seed=seed, task=task, size_px=size_px)
    click.echo(
        text(
            "samples.done",
            images=summary.images,
            notes=summary.notes,
            seconds=summary.seconds,
            path=out,
        )
    )
    if task == "detect":
        click.echo(text("samples.next_detect", path=out))
    else:
        click.echo(text("samples.next_classify", path=out))
