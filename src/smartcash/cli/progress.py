"""The live view of a training in a terminal: one bar for the run's progress, one line per epoch, a last table.

Where the output is not a terminal (a log file, CI) the bar is left out and the lines stay."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from smartcash.cli.tables import classification_table, detection_table
from smartcash.domain import events
from smartcash.utils.i18n import catalogue, text

WIDE = 120  # characters of a terminal; the bar of a narrower one leaves the last figures to the lines of the epochs


class TrainingDisplay:
    """Hears events and shows them; call it with each."""

    def __init__(self) -> None:
        # of several processes that train together, the first one speaks
        self.console = Console(highlight=False, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")
        self.metric = "–"
        self.reason = ""  # how the training ended
        self.kept: events.VersionKept | None = None  # what kept it from becoming a new version
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if self.console.width >= WIDE else 8),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            disable=not self.console.is_terminal or self.console.quiet,
            transient=True,
        )
        self.bar = self.progress.add_task(text("train.preparing"), total=None, facts="")

    def __enter__(self) -> TrainingDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._unread():
            self.progress.stop()

    @contextmanager
    def _unread(self) -> Iterator[None]:
        """The training goes on when its terminal is closed, or the pipe or file that it is shown in takes no more."""
        try:
            yield
        except OSError as error:
            self.console.quiet = True
            # what is still to be written must not fail at the exit
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                if error.errno == errno.EIO:  # a terminal: errors went there too
                    os.dup2(nowhere.fileno(), 2)

    def __call__(self, event: events.Event) -> None:
        with self._unread():
            self._show(event)

    def _show(self, event: events.Event) -> None:
        match event:
            case events.DataFound(code=code, severity=severity, count=count, example=example) if (
                severity != "note"
            ):
                known = f"data.found.{code}"  # one that another version wrote may have no words here
                found = text(known, count=count) if known in catalogue("en") else code
                key = "train.finding_example" if example else "train.finding"
                self.console.print(f"⚠ {text(key, found=found, example=example, count=count)}", markup=False)
            case events.RunReady():
                self._ready(event)
            case events.StepEnded():
                self.progress.update(
                    self.bar, total=event.steps, completed=event.step,
                    description=text("train.epoch", epoch=event.epoch),
                    facts=text(
                        "train.step", step=event.step, steps=event.steps, loss=f"{event.loss:.3f}",
                        metric=f"{self.metric}  " if self.console.width >= WIDE else "",
                        rate=f"{event.images_per_s:.1f}", eta="–" if event.eta_s is None else duration(event.eta_s),
                    ),
                )  # fmt: skip
            case events.RunResumed(epoch=epoch, step=step, checkpoint=checkpoint):
                name = Path(checkpoint).name
                self.console.print(text("train.resumed", epoch=epoch, step=step, name=name), markup=False)
            case events.Commanded(name=name, value=value, source=source):
                self._commanded(name, value, source)
            case events.RolledBack():
                cause = text(f"errors.{event.cause}", **event.facts)
                back = text(
                    "train.rolled_back",
                    epoch=event.epoch,
                    step=event.step,
                    factor=event.lr_factor,
                    left=event.left,
                )
                self.console.print(f"⚠ {cause}", style="yellow", markup=False)
                self.console.print(f"⚠ {back}", style="yellow", markup=False)
            case events.EarlyStopped():
                self.console.print(
                    text(
                        "train.early_stopped", epoch=event.epoch, monitor=event.monitor, best=event.best_epoch,
                        value=_figure(event.best_value), patience=event.patience, delta=event.min_delta,
                    ),
                    markup=False,
                )  # fmt: skip
            case events.RunFinished(reason=reason):
                self.reason = reason
            case events.VersionKept():
                self.kept = event
            case events.EvaluationStarted(split=split):
                self.progress.update(self.bar, facts=text("train.evaluating", split=split))
            case events.EpochEnded():
                self._epoch(event)
            case events.Warned(code=code, facts=facts):
                self.console.print(f"⚠ {text(f'warnings.{code}', **facts)}", style="yellow", markup=False)

    def _ready(self, event: events.RunReady) -> None:
        choices = event.choices
        counts = ", ".join(f"{split} {count}" for split, count in event.images.items())
        lines = [
            text(
                "train.ready_data", task=event.task, classes=len(event.classes), counts=counts,
                names=", ".join(event.classes[:12]),
            ),
            text(
                "train.ready_model", backbone=event.backbone, parameters=f"{event.parameters / 1e6:.1f}",
                image_size=choices["image_size"], batch_size=choices["batch_size"], epochs=event.epochs,
                steps=event.steps_per_epoch,
            ),
            text(
                "train.ready_machine", device=choices["device"], precision=choices["precision"], threads=choices["threads"],
                workers=choices["workers"], cache=choices["cache"], depthwise=choices["fast_depthwise"],
                kernels=choices.get("depthwise_kernels", "torch"),  # a run from before there was a choice
            ),
        ]  # fmt: skip
        for line in lines:
            self.console.print(line, markup=False)

    def _epoch(self, event: events.EpochEnded) -> None:
        row = event.row
        shown = {"mAP50": "mAP50", "mAP50_95": "mAP50_95", "exact_sum": "exact_sum"}
        if "mAP50" not in row:
            shown = {
                "accuracy": "accuracy",
                "loss": "valid_loss",
            }  # `loss` is the word for that of the training
        figures = "  ".join(f"{called} {_figure(row.get(name))}" for name, called in shown.items())
        self.metric = figures
        line = text(
            "train.epoch_line", epoch=event.epoch, epochs=event.epochs, loss=_figure(row.get("train_loss")),
            figures=figures, lr=f"{row.get('lr') or 0:.1e}", rate=f"{row.get('images_per_s') or 0:.1f}",
            elapsed=duration(row.get("elapsed_s") or 0),
        )  # fmt: skip
        self.console.print(f"{line}{'  ★' if event.is_best else ''}", markup=False)

    def _commanded(self, name: str, value: int | None, source: str) -> None:
        line = text(f"train.commanded.{name}", value=value)
        self.console.print(f"▸ {line}{f' ({source})' if source else ''}", markup=False)

    def interrupted(self, reason: str) -> None:
        """A signal came before the training began."""
        with self._unread():
            self.progress.stop()
            self.console.print(text(f"train.interrupted_{reason}"), markup=False)

    def finish(self, folder: Path, outcome: Any) -> None:
        """The last table and where everything lies."""
        with self._unread():
            self._finish(folder, outcome)

    def _finish(self, folder: Path, outcome: Any) -> None:
        self.progress.stop()
        result, split = (outcome.test, "test") if outcome.test else (outcome.best, "valid")
        if result is not None:
            figures = result.to_dict()
            self.console.print(
                text(
                    "train.table_title",
                    split=split,
                    images=figures["images"],
                    epoch=outcome.progress.best_epoch,
                )
            )
            self.console.print(figures_table(figures))
        self.console.print(
            text(
                f"train.ended_{outcome.reason}",
                epoch=outcome.progress.epoch,
                elapsed=duration(outcome.progress.seconds),
            )
        )
        self.tell_version()
        names = ("report/predictions.jpg", "report/metrics.json", "weights", "epochs.csv", "config.yaml")
        places = {
            text(f"train.where.{Path(name).stem}"): folder / name
            for name in names
            if (folder / name).exists()
        }
        width = max(map(len, places), default=0)
        for label, place in places.items():  # no table: a path must stay whole, to be copied
            self.console.print(f"  {label:<{width}}  {place}", markup=False)
        again = outcome.reason in ("stopped", "preempted", "time_up", "kept_best")
        self.console.print(text("train.next_resume" if again else "train.next", run=folder), markup=False)

    def tell_version(self) -> None:
        """Why there is no new model version, where there is none."""
        if (kept := self.kept) is not None:
            figure = _figure(kept.value)
            self.console.print(
                text(
                    "train.version_kept", epoch=kept.epoch, run=kept.run, monitor=kept.monitor, value=figure,
                    version=kept.version,
                ),
                markup=False,
            )  # fmt: skip


def figures_table(figures: dict[str, Any]) -> Table:
    """The table that fits the figures' task."""
    return detection_table(figures) if "mAP50" in figures else classification_table(figures)


def duration(seconds: float) -> str:
    """75 → "1:15", 3700 → "1:01:40"."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
