"""`smartcash worker`: what the Training Service starts. It waits for its turn before it loads anything heavy."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.domain.ports import Command
    from smartcash.services.control import Signals
    from smartcash.services.run_store import RunFolder

MODES = ("check", "train")


@language_option
@click.command("worker", hidden=True, help=text("cli.worker.help"), epilog=text("cli.worker.example"))
@click.argument("run")
@click.argument("mode", type=click.Choice(MODES))
def command(run: str, mode: str) -> None:
    from smartcash.services.control import listen_to_signals, reason_of_interrupt
    from smartcash.services.processes import identity
    from smartcash.services.run_store import find_run

    folder = find_run(run)
    # whoever began this may have died before writing it down
    folder.describe({"worker": identity(os.getpid())})
    try:
        with listen_to_signals() as signals:
            if mode == "check":
                _check(folder, signals)
            else:
                _train(folder, signals)
    except KeyboardInterrupt as interrupted:
        # also while it waits or loads: the run says that it was stopped, not that it crashed
        reason = reason_of_interrupt(interrupted)
        folder.describe({"state": reason, "reason": reason})
        sys.exit(130 if reason == "stopped" else 143)


def _check(folder: RunFolder, signals: Signals) -> None:
    from smartcash.services.workers import Turns

    with Turns(folder.path.parent.parent, folder.config().runtime.device).at_once() as free:
        from smartcash.worker import check

        check(folder, measured=free, signals=signals)


def _train(folder: RunFolder, signals: Signals) -> None:
    from smartcash.domain.errors import SmartCashError
    from smartcash.services.control import ControlFile
    from smartcash.services.processes import HEARTBEAT
    from smartcash.services.workers import Turns

    control = ControlFile(folder.control)
    early: list[Command] = []  # what came while the run was queued is for its training

    def given_up() -> bool:
        signals.raise_fallen()
        (folder.path / HEARTBEAT).touch()  # later the training's own heart beats
        early.extend(control())
        return any(command.name in ("stop", "preempt", "keep_best") for command in early)

    def commands() -> list[Command]:
        waiting = [*early, *control()]
        early.clear()
        return waiting

    turns = Turns(folder.path.parent.parent, folder.config().runtime.device)
    with turns.waited_for(folder, given_up) as held:
        if not held:
            folder.describe({"state": "stopped", "reason": "stopped"})
            return
        from smartcash.worker import resume

        try:
            outcome = resume(folder, signals=signals, commands=commands)
        except SmartCashError as error:
            folder.describe({"state": "failed", "error": str(error)})
            raise
    if outcome.reason in ("stopped", "preempted"):
        sys.exit(130 if outcome.reason == "stopped" else 143)
