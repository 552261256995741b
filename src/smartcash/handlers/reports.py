"""Report cards of versions for a page: made in a process of their own, kept as long as they are true."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from smartcash import __version__
from smartcash.domain.errors import RunNotFound
from smartcash.domain.records import ModelVersion
from smartcash.services.side_work import SideWork
from smartcash.utils.i18n import current_language

CARD_PAGE = "card.html"
KEPT = 20  # report cards whose page is kept


class Reports:
    """The report cards of one home, below `<home>/.reports`, which can be deleted at any time. Safe to use from
    several threads."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self._folder = self.home / ".reports"
        self._work = SideWork(CARD_PAGE, KEPT)
        self._wanted: dict[Path, list[str]] = {}

    def state(self, version: ModelVersion, language: str | None = None) -> dict[str, Any]:
        """`state`: none, working (or waiting for another one), ready or failed; `error`: what was said then."""
        folder = self._of(version, language)
        if (folder / CARD_PAGE).is_file():
            return {"state": "ready", "error": ""}
        command = self._wanted.get(folder)
        if command is None:
            return {"state": "none", "error": ""}
        state = self._work.advance(folder, command)
        if state == "failed":
            self._wanted.pop(folder, None)  # begun again only when somebody asks again
        return {"state": state, "error": self._work.said(folder) if state == "failed" else ""}

    def begin(self, version: ModelVersion, language: str | None = None) -> dict[str, Any]:
        """Have it made, if it is not there; the state as above. Whoever wants it asks for its state until it is
        ready: of several report cards one is worked on at a time, the next is begun by being asked for."""
        folder = self._of(version, language)
        command = ["report", version.name, "--html", str(folder / CARD_PAGE), "--home", str(self.home)]
        self._wanted[folder] = [*command, "--lang", language or current_language()]
        return self.state(version, language)

    def page(self, version: ModelVersion, language: str | None = None) -> Path:
        """The page, with everything in it. Raises RunNotFound."""
        path = self._of(version, language) / CARD_PAGE
        if not path.is_file():
            raise RunNotFound("run_file_missing", run=version.name, name=CARD_PAGE)
        return path

    def close(self) -> None:
        """End what is being worked on."""
        self._work.close()

    def _of(self, version: ModelVersion, language: str | None) -> Path:
        facts = [__version__, version.name, version.sha256, language or current_language()]
        return self._folder / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
