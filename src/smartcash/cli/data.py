"""`smartcash data …`: draw, check, split and preview data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.backend.formats import DataSet


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
def sample(out: Path, images: int, seed: int, task: Literal["detect", "classify"], size_px: int) -> None:
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


@language_option
@command.command("check", help=text("cli.data.check.help"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help=text("cli.data.check.strict"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.data.check.json"))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help=text("cli.data.seed"))
def check(data: Path, strict: bool, as_json: bool, seed: int) -> None:
    from smartcash.backend.formats import read_dataset, verify_images
    from smartcash.domain.errors import DataInvalid

    dataset = verify_images(read_dataset(data, seed=seed))
    click.echo(json.dumps(_facts(dataset), ensure_ascii=False, indent=2) if as_json else _summary(dataset))
    if strict and (problems := dataset.report.problems("error", "warning")):
        raise DataInvalid("data_strict", problems, path=str(data))


@language_option
@command.command("split", help=text("cli.data.split.help"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help=text("cli.data.split.out"),
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help=text("cli.data.seed"))
def split(data: Path, out: Path, seed: int) -> None:
    from smartcash.backend.formats import read_dataset, resplit, verify_images, write_dataset

    dataset = resplit(verify_images(read_dataset(data, seed=seed)), seed=seed)
    write_dataset(dataset, out)
    click.echo(_summary(dataset))
    click.echo(text("data.split_written", path=out))


@language_option
@command.command("preview", help=text("cli.data.preview.help"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    default=Path("preview.jpg"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help=text("cli.data.preview.out"),
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text("cli.train.set"))
def preview(data: Path, out: Path, assignments: tuple[str, ...]) -> None:
    from smartcash.domain.config import TrainConfig, merge, parse_assignments
    from smartcash.worker import preview_data

    config = TrainConfig.parse(merge({"data": {"path": str(data)}}, parse_assignments(assignments)))
    click.echo(text("cli.data.preview.done", path=preview_data(config, out)))


def _facts(dataset: DataSet) -> dict[str, object]:
    """Everything `data check` knows, for `--json`."""
    from smartcash.backend.formats import count_boxes

    splits = {
        name: {
            "images": len(samples),
            "groups": len({sample.group for sample in samples}),
            "background": sum(len(sample.labels_N) == 0 for sample in samples),
            "labels": dict(zip(dataset.classes, count_boxes(samples, len(dataset.classes)).tolist())),
        }
        for name, samples in dataset.splits.items()
    }
    findings = [
        {
            "code": finding.code,
            "severity": finding.severity,
            "file": finding.file,
            "line": finding.line,
            "value": finding.value,
            "done": finding.done,
            "message": finding.message(),
        }
        for finding in dataset.report.findings
    ]
    return {
        "path": str(dataset.root),
        "format": dataset.format,
        "task": dataset.task,
        "classes": list(dataset.classes),
        "splits": splits,
        "split_seed": dataset.split_seed,
        "content_hash": dataset.content_hash,
        "findings": findings,
    }


def _summary(dataset: DataSet, examples: int = 3) -> str:
    """Format, a table of classes and splits, and the findings grouped by code with the first examples."""
    from smartcash.backend.formats import count_boxes

    splits = dataset.splits
    lines = [text("data.title", format=dataset.format, task=dataset.task, path=dataset.root), ""]
    counts = [count_boxes(samples, len(dataset.classes)).tolist() for samples in splits.values()]
    rows = [[text("data.class"), *splits]]
    rows += [[name, *map(str, numbers)] for name, *numbers in zip(dataset.classes, *counts)]
    rows += [[text(f"data.labels_{dataset.task}"), *(str(sum(numbers)) for numbers in counts)]]
    rows += [[text("data.images"), *(str(len(samples)) for samples in splits.values())]]
    background = [sum(len(sample.labels_N) == 0 for sample in samples) for samples in splits.values()]
    rows += [[text("data.background"), *map(str, background)]] if any(background) else []
    first = max(len(row[0]) for row in rows)
    lines += ["  " + row[0].ljust(first) + "".join(cell.rjust(9) for cell in row[1:]) for row in rows]
    lines += ["", text("data.hash", hash=dataset.content_hash[:16])]
    if not dataset.report.findings:
        return "\n".join([*lines, text("data.clean")])
    for severity, mark in (("error", "✗"), ("warning", "!"), ("note", "·")):
        found = [finding for finding in dataset.report.findings if finding.severity == severity]
        for code in dict.fromkeys(finding.code for finding in found):
            same = [finding for finding in found if finding.code == code]
            done = text(f"data.done.{same[0].done}")
            lines += ["", f"{mark} {text(f'data.severity.{severity}')} {code} × {len(same)} ({done})"]
            lines += [f"    {finding.where}: {finding.message()}" for finding in same[:examples]]
            lines += [f"    {text('data.more', count=len(same) - examples)}"] if len(same) > examples else []
    return "\n".join(lines)
