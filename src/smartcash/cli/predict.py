"""`smartcash predict`: what a model sees in pictures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text


@language_option
@click.command("predict", help=text("cli.predict.help"), epilog=text("cli.predict.example"))
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=text("cli.predict.out"))
@click.option("--threshold", type=click.FloatRange(0, 1), help=text("cli.predict.threshold"))
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
def command(
    model: str,
    images: tuple[Path, ...],
    out: Path | None,
    threshold: float | None,
    device: str,
    as_json: bool,
) -> None:
    from smartcash.domain.banknotes import format_rupiah
    from smartcash.worker import predict_files

    failed = False
    for facts in predict_files(model, files_in(images), out, threshold=threshold, device=device):
        failed = failed or "error" in facts
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        elif "error" in facts:
            click.echo(f"✗ {facts['error']}", err=True)
        else:
            seen = ", ".join(f"{row['class']} {row['score']:.0%}" for row in facts["found"]) or text(
                "predict.nothing"
            )
            total = "" if facts["total_rupiah"] is None else f"  =  {format_rupiah(facts['total_rupiah'])}"
            click.echo(f"{facts['file']}: {seen}{total}")
    if out is not None and not as_json:
        click.echo(text("predict.drawn", folder=out))
    if failed:
        raise SystemExit(1)


def files_in(given: tuple[Path, ...]) -> list[Path]:
    """Folders are opened, one level deep; hidden files are left out."""
    files: list[Path] = []
    for path in given:
        files += (
            sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
            if path.is_dir()
            else [path]
        )
    return files
