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

    def state(self, version: ModelVersion, language: str | None = None) -> dict[str, Any]:
        """`state`: none, working, ready or failed; `error`: what was said then."""
        folder = self._of(version, language)
        state = self._work.state(folder)
        return {"state": state, "error": self._work.said(folder) if state == "failed" else ""}

    def begin(self, version: ModelVersion, language: str | None = None) -> dict[str, Any]:
        """Have it made, if it is not there; the state as above. Of several only one is worked on at a time."""
        command = ["report", version.name, "--html", str(self._of(version, language) / CARD_PAGE)]
        command += ["--home", str(self.home), "--lang", language or current_language()]
        self._work.advance(self._of(version, language), command)
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
