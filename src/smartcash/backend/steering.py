"""What the user and the system want of a running training: commands in, decisions out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from operator import attrgetter

from smartcash.backend.distributed import World
from smartcash.domain.config import TrainConfig, nested
from smartcash.domain.errors import ConfigInvalid
from smartcash.domain.events import Commanded, Warned
from smartcash.domain.ports import CHANGED, Command, Control, EventSink

PAUSE_POLL_S = 0.1
STOPS = {"stop": "stopped", "preempt": "preempted", "keep_best": "kept_best"}


class Steering:
    """Polls `control` and keeps what was asked for. `reason`: why to stop now, None to go on. `config`: the resolved
    configuration with what was changed on the way, see `CHANGED`. With several processes the leader listens, and all
    learn of it."""

    def __init__(
        self,
        control: Control,
        emit: EventSink,
        world: World,
        config: TrainConfig,
        seconds: float,
    ) -> None:
        self.control, self.emit, self.world, self.config = control, emit, world, config
        self.reason: str | None = None
        self.after_epoch = False
        self._paused = False
        self._limit_s = (config.training.max_hours or math.inf) * 3600
        self._started = time.monotonic() - seconds

    @property
    def epochs(self) -> int:
        """How many to train in all."""
        return self.config.training.epochs

    @property
    def seconds(self) -> float:
        """Time spent in this run's training, pauses left out."""
        return time.monotonic() - self._started

    def poll(self, epoch: int, step: int, on_pause: Callable[[], None] = lambda: None) -> bool:
        """Whether to go on after `step` steps; waits here through a pause, which begins with `on_pause`."""
        self._hear(epoch, step)
        if self._paused and self.reason is None:
            on_pause()
            paused = time.monotonic()
            while self._paused and self.reason is None:
                time.sleep(PAUSE_POLL_S)
                self._hear(epoch, step)
            self._started += time.monotonic() - paused
        if self.reason is None and self.world.any(self.seconds > self._limit_s):
            self.reason = "time_up"
        return self.reason is None

    def _hear(self, epoch: int, step: int) -> None:
        commands = list(self.control())
        if self.world.any(bool(commands)):
            for heard in self.world.gather(commands):
                for command in heard:
                    self._obey(command, epoch, step)

    def _obey(self, command: Command, epoch: int, step: int) -> None:
        was: int | None = None
        match command.name:
            case "pause":
                self._paused = True
            case "continue":
                self._paused = False
            case "stop" | "preempt" | "keep_best":
                if self.reason not in ("stopped", "preempted"):
                    self.reason = STOPS[command.name]
            case "stop_after_epoch":
                self.after_epoch = True
            case "patience" | "epochs" | "threads" as name:
                was = attrgetter(CHANGED[name])(self.config)
                try:
                    self.config = self.config.replaced(**nested(CHANGED[name], command.value))
                except ConfigInvalid as error:  # the control file is open to anyone
                    self.emit(Warned("command_refused", {"command": name, "reason": str(error)}))
                    return
        self.emit(Commanded(command.name, command.value, was, command.source, epoch, step))
