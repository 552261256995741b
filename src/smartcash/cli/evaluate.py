"""`smartcash evaluate`: all figures of a model on a split."""

from __future__ import annotations

import json

import click

from smartcash.cli import language_option
from smartcash.cli.options import models_home_option
from smartcash.utils.i18n import text


@language_option
@click.command("evaluate", help=text("cli.evaluate.help"), epilog=text("cli.evaluate.example"))
@click.argument("model")
@click.argument("data")
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="test",
    show_default=True,
    help=text("cli.evaluate.split"),
)
@click.option("--seed", type=int, default=0, show_default=True, help=text("cli.evaluate.seed"))
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
@models_home_option
def command(model: str, data: str, split: str, seed: int, device: str, as_json: bool) -> None:
    from smartcash.worker import evaluate_model

    figures = evaluate_model(model, data, split, seed=seed, device=device)
    if as_json:
        click.echo(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from smartcash.cli.progress import figures_table

    console = Console(highlight=False)
    console.print(
        text("evaluate.title", model=figures["model"], split=split, images=figures["images"]), markup=False
    )
    console.print(figures_table(figures))
