"""What every route of the server works with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import Request

from smartcash.domain.errors import Problem, RunNotFound
from smartcash.domain.records import ACTIVE, RunInfo
from smartcash.handlers.comparison import Comparisons
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.operation_log import OperationLog
from smartcash.handlers.reports import Reports
from smartcash.handlers.run_history import RunHistory
from smartcash.handlers.run_view import RunView
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.curves import CurveReader
from smartcash.services.data_sets import DataSets
from smartcash.services.jobs import Jobs
from smartcash.services.run_store import RunFolder
from smartcash.services.workbench import Workbench
from smartcash.ui.stream import Stream
from smartcash.utils.i18n import LANGUAGES

LONGEST_NAME = 200
MAKING = ("draw", "split")  # jobs that write a data set
MOST_NAMES = 1000  # of backbones that are remembered


@dataclass
class Studio:
    """The handlers of one home, and the workbenches that answer what only torch or OpenCV can."""

    home: Path
    interface: str = "web"

    def __post_init__(self) -> None:
        self.manager = TrainingManager(
            self.home,
            interface=self.interface,
            try_backbone=lru_cache(MOST_NAMES)(self._problems_of_backbone),
        )
        self.history = RunHistory(self.home, self.interface)
        self.versions = ModelVersions(self.home, self.interface)
        self.log = OperationLog(self.home / "operations.jsonl", self.interface)
        self.curves = CurveReader()
        self.jobs = Jobs()
        self.sets = DataSets(self.home)
        # a look at a picture does not wait for an export
        self.data, self.models, self.work, self.making = (Workbench(self.home) for _ in range(4))
        self.comparisons = Comparisons(self.home)
        self.reports = Reports(self.home)
        self.stream = Stream(self.history.store, self.manager.service, self.jobs, self.log)
        self.beginning = threading.Lock()  # of two runs begun at once one is told of the other
        self.pictures: dict[str, bytes] = {}  # augmented ones, for the page to fetch; the newest only

    def _problems_of_backbone(self, name: str) -> list[Problem]:
        return [Problem(**problem) for problem in self.models.ask("problems_of_backbone", name=name)]

    def run(self, name: str) -> RunInfo:
        """The run of this home with this id, beginning of an id, or name; "latest" is the newest. Never one at a path.

        Raises RunNotFound."""
        return self.history.store.find(self._plain(name))

    def trashed(self, name: str) -> RunInfo:
        """The run in the trash with this id, beginning of an id, or name. Raises RunNotFound."""
        return self.history.store.find_trashed(self._plain(name))

    def _plain(self, name: str) -> str:
        if len(name) > LONGEST_NAME or name in (".", "..") or any(sign in name for sign in "/\\\0"):
            raise RunNotFound("run_not_found", name=name[:LONGEST_NAME], home=str(self.home))
        return name

    def folder(self, name: str) -> RunFolder:
        """The folder of that run. Raises RunNotFound."""
        return RunFolder(Path(self.run(name).path))

    def known(self, name: str) -> str:
        """A version or alias as it is, a run as its folder: never a path that somebody made up. Raises RunNotFound or
        VersionNotFound."""
        if self.versions.store.knows(name):
            return self.versions.find(name).name
        return str(Path(self.run(name).path).absolute())

    def view(self, name: str) -> RunView:
        """A run to look at, with its true state: a worker that died is noticed. Raises RunNotFound."""
        run = self.run(name)
        if run.state in ACTIVE:
            self.manager.service.state(RunFolder(Path(run.path)))
            run = self.run(run.id)
        return RunView(run)

    def close(self) -> None:
        """End the workbenches; an export that has begun is finished."""
        self.comparisons.close()
        self.reports.close()
        self.data.close()
        self.models.close()
        self.making.close()
        for kind in MAKING:
            self.jobs.settle(kind)  # what is half made is taken away
        self.work.close(at_once=False)


def studio_of(request: Request) -> Studio:
    """The Studio of the application that a request came to."""
    studio: Studio = request.app.state.studio
    return studio


def language_of(request: Request) -> str:
    """`?lang=`, else the first known one of Accept-Language, else Indonesian."""
    asked = request.query_params.get("lang", "")
    if asked in LANGUAGES:
        return asked
    wanted = []
    for part in request.headers.get("accept-language", "").split(","):
        name, _, quality = part.partition(";q=")
        weight = float(quality) if quality.replace(".", "", 1).isdigit() else 1.0
        wanted.append((-weight, name.strip()[:2].lower()))
    return next((name for _, name in sorted(wanted, key=lambda pair: pair[0]) if name in LANGUAGES), "id")
