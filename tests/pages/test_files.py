"""The page's files: what a script imports is there, vendor/ is what the lock says, and nothing of others is committed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import smartcash.ui
from smartcash.ui.server import create_app

WEB = Path(smartcash.ui.__file__).parent / "web"
ROOT = Path(__file__).parents[2]


def test_every_module_that_a_script_imports_is_there() -> None:
    """The build has filled vendor/, and no bare name is left that only an import map would explain."""
    missing = []
    for script in [*WEB.glob("*.js"), *WEB.glob("pages/*.js"), *WEB.glob("vendor/*.js")]:
        for name in re.findall(r'(?:\bfrom|\bimport)\s*"([^"\s$]+)"', script.read_text(encoding="utf-8")):
            if (not name.startswith("./") and not name.startswith("../")) or not (
                script.parent / name
            ).is_file():
                missing.append(f"{script.name}: {name}")
    assert missing == []


@pytest.mark.parametrize("page", ["", "train", "runs", "runs/abc", "compare", "models/v1", "log"])
def test_every_page_names_all_its_modules_and_each_is_there(tmp_path: Path, page: str) -> None:
    """So that the browser asks for them at once, not for each when the one before has come."""
    with TestClient(create_app(tmp_path)) as client:
        shown = client.get(f"/{page}").text
    named = re.findall(r'(?:href|src)="([^"]+\.(?:js|css|svg))"', shown)
    assert [name for name in named if not (WEB / name).is_file()] == []
    for name in (name for name in set(named) if name.endswith(".js")):
        source = (WEB / name).read_text(encoding="utf-8")
        wanted = [(WEB / name).parent / each for each in re.findall(r'\bfrom\s*"(\.[^"]+)"', source)]
        assert {each.resolve() for each in wanted} <= {(WEB / each).resolve() for each in named}
    assert ("pages/run.js" in named) == (
        page in ("runs/abc", "models/v1")
    )  # a version shows exports as a run does


def test_a_run_is_asked_for_what_its_page_takes_longest_to_get(tmp_path: Path) -> None:
    """D12: its course, as `course.js` asks for it; a name cannot break out of the page."""
    with TestClient(create_app(tmp_path)) as client:
        shown = client.get("/runs/abc").text
        hostile = client.get("/runs/%22%3E%3Cscript%3E").text
        beside = client.get("/runs/abc?tab=files").text
    asked = re.findall(r'<link rel="preload" as="fetch" crossorigin href="([^"]+)">', shown)
    course = (WEB / "course.js").read_text(encoding="utf-8")
    points = re.search(r"POINTS = (\d+)", course)
    assert points and asked == [f"api/v1/runs/abc/metrics?max_points={points[1]}", "api/v1/runs/abc/epochs"]
    assert "<script>" not in hostile
    assert 'as="fetch"' not in beside


def test_an_address_that_leads_nowhere_is_a_page_for_a_person_and_a_problem_for_a_program(
    tmp_path: Path,
) -> None:
    with TestClient(create_app(tmp_path)) as client:
        for path in ("/nowhere", "/nowhere/deep", "/%2e%2e/pyproject.toml"):
            person = client.get(path, headers={"accept": "text/html,*/*"})
            assert (person.status_code, "pages/lost.js" in person.text) == (404, True)
            assert client.get(path).json()["code"] == "not_found"
        assert client.get("/api/v1/nowhere", headers={"accept": "text/html"}).json()["code"] == "not_found"


def test_the_lock_names_versions_and_hashes_and_no_addresses() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: facts for name, facts in lock["packages"].items() if name}
    assert set(packages) == {
        f"node_modules/{name}"
        for name in ("preact", "htm", "uplot", "@preact/signals", "@preact/signals-core")
    }
    assert all(facts["integrity"].startswith("sha512-") for facts in packages.values())
    assert {facts["license"] for facts in packages.values()} <= {"MIT", "Apache-2.0", "BSD-3-Clause", "ISC"}
    assert "http" not in re.sub(r'"funding": \{[^}]*\}', "", json.dumps(lock))


def test_the_licences_of_what_is_copied_stand_beside_it() -> None:
    """D16."""
    told = (WEB / "vendor" / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("preact", "htm", "uplot", "@preact/signals", "@preact/signals-core"):
        assert re.search(rf"^{name}$", told, re.MULTILINE)
    assert told.count("Copyright") >= 5


def test_nothing_of_others_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    asked = ["git", "ls-files", "src/smartcash/ui/web/vendor", "node_modules"]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""
