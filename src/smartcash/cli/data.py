"""`smartcash data …`: draw, check, split and preview data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from smartcash.cli import language_option
from smartcash.cli.options import TargetFile
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.backend.formats import DataSet

_MARKS = {"error": "✗", "warning": "!", "note": "·"}


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
@click.option("--html", "page", type=TargetFile(), help=text("cli.data.check.html"))
@click.option(
    "--fix", "fixed", type=click.Path(path_type=Path, file_okay=False), help=text("cli.data.check.fix")
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help=text("cli.data.seed"))
def check(data: Path, strict: bool, as_json: bool, page: Path | None, fixed: Path | None, seed: int) -> None:
    from smartcash.backend.formats import read_dataset
    from smartcash.backend.formats.writing import refuse_unwritable, refuse_used
    from smartcash.backend.health import examine, fix, write_page
    from smartcash.domain.errors import DataInvalid

    if page is not None:
        refuse_unwritable(page.absolute().parent)
    dataset = read_dataset(data, seed=seed)
    if fixed is not None:  # before minutes of work
        refuse_used(dataset, fixed)
    dataset = examine(dataset)
    shown = json.dumps(_facts(dataset), ensure_ascii=False, indent=2) if as_json else _summary(dataset)
    click.echo(_printable(shown))
    if page is not None:
        write_page(dataset, page)
        click.echo(text("health.page_written", path=page), err=as_json)
    if fixed is not None:
        done = fix(dataset, fixed)
        told = text("health.fixed", path=fixed, changes=len(done.changes), left=len(done.left))
        click.echo(told, err=as_json)
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
@click.option(
    "--groups",
    "groups_by",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "name", "off"]),
    help=text("cli.data.split.groups"),
)
@click.option(
    "--valid",
    default=15,
    show_default=True,
    type=click.IntRange(1, 45),
    help=text("cli.data.split.valid"),
)
@click.option(
    "--test", default=15, show_default=True, type=click.IntRange(0, 45), help=text("cli.data.split.test")
)
def split(
    data: Path, out: Path, seed: int, groups_by: Literal["auto", "name", "off"], valid: int, test: int
) -> None:
    from smartcash.backend.formats import read_dataset, resplit, shares_of, verify_images, write_dataset

    dataset = verify_images(read_dataset(data, seed=seed))
    dataset = resplit(dataset, seed=seed, groups_by=groups_by, shares=shares_of(valid, test))
    write_dataset(dataset, out)
    click.echo(_printable(_summary(dataset)))
    click.echo(text("data.split_written", path=out))


@language_option
@command.command("preview", help=text("cli.data.preview.help"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    default=Path("preview.jpg"),
    show_default=True,
    type=TargetFile(),
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
    from smartcash.backend.formats import facts_of

    return {**facts_of(dataset), "findings": [finding.to_dict() for finding in dataset.report.findings]}


def _printable(shown: str) -> str:
    """File names that are no UTF-8 stand in Python as lone surrogates, which no terminal takes: they show as ?"""
    return shown.encode("utf-8", "replace").decode()


def _summary(dataset: DataSet, examples: int = 3) -> str:
    """Format, a table of classes and splits, and the findings of each kind with the first examples."""
    from smartcash.backend.formats import count_boxes
    from smartcash.backend.health.page import by_code

    splits = dataset.splits
    lines = [text("data.title", format=dataset.format, task=dataset.task, path=dataset.source), ""]
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
    for same in by_code(dataset):
        kind = same[0]
        heading = text(f"data.found.{kind.code}", count=len(same))
        severity, done = text(f"data.severity.{kind.severity}"), text(f"data.done.{kind.done}")
        small = click.style(f"({severity}, {done}; {kind.code})", dim=True)
        lines += ["", f"{_MARKS[kind.severity]} {heading}  {small}"]
        for finding in same[:examples]:
            lines.append("    " + ": ".join(filter(None, [finding.where, finding.message()])))
        lines += [f"    {text('data.more', count=len(same) - examples)}"] if len(same) > examples else []
    return "\n".join(lines)
