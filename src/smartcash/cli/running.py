"""A training in the foreground: its display, and the exit code that says how it ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from smartcash.cli import leads
from smartcash.cli.progress import TrainingDisplay, duration
from smartcash.domain.errors import Problem, RunNotReady
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.control import Interrupted, Signals, listen_to_signals, reason_of_interrupt
from smartcash.services.run_store import RunFolder
from smartcash.services.workers import Turns
from smartcash.utils.i18n import text

EXIT_CODES = {"stopped": 130, "preempted": 143}


@contextmanager
def foreground() -> Iterator[tuple[TrainingDisplay, Signals]]:
    """The display to pass events to, and signals heard from now on: also while torch is being loaded.

    Ends with exit code 130 after a stop by the user and 143 after one by the system."""
    with TrainingDisplay() as display:
        try:
            with listen_to_signals() as signals:
                yield display, signals
        except KeyboardInterrupt as interrupted:
            reason = reason_of_interrupt(interrupted)
            if isinstance(interrupted, Interrupted):
                display.interrupted(reason)
            sys.exit(EXIT_CODES[reason])
    if display.reason in EXIT_CODES:
        sys.exit(EXIT_CODES[display.reason])


@contextmanager
def turn_on(home: Path, device: str) -> Iterator[None]:
    """Hold a device for a training in the foreground. Raises RunNotReady when another one of this home has it."""
    if not leads():
        yield
        return
    with Turns(home, device).at_once() as free:
        if not free:
            raise RunNotReady("device_busy", home=str(home))
        yield


def backbone_problems(name: str) -> list[Problem]:
    """What is wrong with the name of a backbone; loads torch, and a signal meanwhile is one before a training."""
    try:
        with listen_to_signals():
            from smartcash.worker import backbone_problems as found

            return found(name)
    except Interrupted as interrupted:
        click.echo(text(f"train.interrupted_{interrupted.reason}"))
        sys.exit(EXIT_CODES[interrupted.reason])


def prepared(manager: TrainingManager, run: RunFolder) -> None:
    """Wait until a run is ready and say what it will take. Raises ConfigInvalid with what was found."""
    click.echo(text("train.checking", run=run.id))
    forecast = manager.wait_ready(run)
    if not forecast:
        click.echo(text("train.forecast_later"))
        return
    click.echo(
        text(
            "train.forecast", duration=duration(forecast["duration_s"]), memory=f"{forecast['memory_mb'] / 1024:.1f}",
            disk=f"{forecast['disk_mb']:.0f}", checkpoints=forecast["checkpoints"],
        )
    )  # fmt: skip
