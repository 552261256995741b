"""`smartcash export`: models as files for other runtimes, each with its proof."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import models_home_option
from smartcash.domain.exports import PRECISIONS, ExportRecord, ExportRequest, Precision, Proof
from smartcash.utils.i18n import decimal, text

if TYPE_CHECKING:
    from smartcash.domain.errors import ExportRefused

FORMAT_NAMES = ("coreml", "executorch", "litert", "mnn", "ncnn", "onnx", "openvino", "pt2", "safetensors")


class _ModelFirst(click.Group):
    """A group in which what is not the name of a command is the MODEL of the first one, or an option before it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["model", *args])


class _Batch(click.ParamType[int | None]):
    name = "N|dynamic"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "dynamic":
            return None
        if value.isascii() and value.isdigit():
            return int(value)
        self.fail(text("cli.export.batch_wrong", value=value), param, ctx)


def _help(key: str, example: str) -> str:
    return f"{text(f'cli.export.{key}')}\n\n\b\n{text('cli.export.example')}:\n  smartcash export {example}"


command = language_option(
    _ModelFirst(
        "export",
        help=_help("help", "latest --format onnx --nms"),
        context_settings={"ignore_unknown_options": True},
    ),
)


@language_option
@command.command("model", help=_help("model", "model latest --format onnx --nms"))
@click.argument("model")
@click.option("--format", "formats", type=click.Choice(FORMAT_NAMES), multiple=True,
              help=text("cli.export.format"))  # fmt: skip
@click.option("--all", "every", is_flag=True, help=text("cli.export.all"))
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
              help=text("cli.export.precision"))  # fmt: skip
@click.option("--nms", is_flag=True, help=text("cli.export.nms"))
@click.option(
    "--batch",
    type=_Batch(),
    metavar="N|dynamic",
    default="dynamic",
    show_default=True,
    help=text("cli.export.batch"),
)
@click.option("--image-size", type=int, help=text("cli.export.image_size"))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help=text("cli.export.out"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
@models_home_option
def model(
    model: str,
    formats: tuple[str, ...],
    every: bool,
    precision: Precision,
    nms: bool,
    batch: int | None,
    image_size: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    names = FORMAT_NAMES if every else tuple(dict.fromkeys(formats or ("onnx",)))
    if out is not None and len(names) != 1:
        raise click.UsageError(text("cli.export.one_file"))
    from smartcash.worker import export_model

    requests = [ExportRequest(name, precision, nms, batch, image_size) for name in names]
    made = zip(names, export_model(model, requests, out, interface="cli"))
    if code := _shown(made, every, len(names) > 1, as_json):
        raise SystemExit(code)


def _shown(
    made: Iterable[tuple[str, ExportRecord | ExportRefused]], every: bool, several: bool, as_json: bool
) -> int:
    """Say what became of each, and give the exit code: 1 when one failed or nothing was written, 2 when one of those
    asked for by name was refused. With `--all`, a format that cannot be had here is no failure."""
    well, written, refused = True, False, False
    for name, result in made:
        if not isinstance(result, ExportRecord):
            if not several:
                raise result
            refused = True
            facts = {"format": name, "state": "refused", "error": str(result)}
            click.echo(
                json.dumps(facts, ensure_ascii=False)
                if as_json
                else text("export.refused", format=name, reason=result)
            )
            continue
        well, written = well and result.state != "failed", written or result.state != "failed"
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else _line(result))
        if not result.repeatable and not as_json:
            click.echo(text("export.not_repeatable"))
    if not written and well and not as_json:
        click.echo(text("export.none"))
    if refused and not every:
        return 2
    return 0 if well and written else 1


def _line(record: ExportRecord) -> str:
    proof = Proof(**record.proof)
    if record.state == "failed":
        return text("export.failed", format=record.format, reason=record.error or reason_of(proof))
    if record.state == "unverified":
        return text("export.unverified", file=record.file, reason=reason_of(proof))
    return text(
        "export.verified", file=record.file, count=proof.count, pictures=text(f"export.pictures.{proof.pictures}"),
        figures=figures_of(proof),
    )  # fmt: skip


def figures_of(proof: Proof) -> str:
    """The figures of a proof, in one line."""
    parts = []
    if proof.box_px is not None:
        parts.append(text("export.figures.box_px", value=decimal(proof.box_px, ".1e")))
    parts.append(text("export.figures.score", value=decimal(proof.score or 0, ".1e")))
    if proof.agreement is not None:
        parts.append(text("export.figures.agreement", value=f"{100 * proof.agreement:.0f}"))
    if proof.metric_torch is not None and proof.metric_file is not None:
        before, after = decimal(proof.metric_torch, ".4f"), decimal(proof.metric_file, ".4f")
        parts.append(text("export.figures.metric", name=proof.metric, torch=before, file=after))
    return ", ".join(parts)


def reason_of(proof: Proof) -> str:
    """Why a proof failed or is none."""
    facts: dict[str, Any] = {
        "box_px": f"{proof.box_px or 0:.3g}", "score": f"{proof.score or 0:.3g}",
        "agreement": f"{100 * (proof.agreement or 0):.1f}", "metric": proof.metric,
        "metric_torch": f"{proof.metric_torch or 0:.4f}", "metric_file": f"{proof.metric_file or 0:.4f}",
        "limit": proof.limits.get(proof.reason, ""), "systems": ", ".join(proof.systems),
    }  # fmt: skip
    return text(f"export.reasons.{proof.reason}", **facts)


@language_option
@command.command("verify", help=_help("verify", "verify runs/detect/RUN/exports/efficientnet_lite0-320.onnx"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
def verify(file: Path, as_json: bool) -> None:
    from smartcash.worker import verify_export

    proof, metadata = verify_export(file)
    if as_json:
        click.echo(
            json.dumps(
                {"file": str(file), **proof.to_dict(), "metadata": metadata}, indent=1, ensure_ascii=False
            )
        )
    elif proof.state == "verified":
        click.echo(text("export.again", file=file, figures=figures_of(proof)))
    elif proof.state == "unverified":
        click.echo(text("export.unverified", file=file, reason=reason_of(proof)))
    else:
        click.echo(text("export.again_failed", file=file, reason=reason_of(proof)))
    if proof.state != "verified":
        raise SystemExit(1)
