"""The page's files: what a script imports is there, vendor/ is what the lock says, and nothing of others is committed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import smartcash.ui

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


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(
        r'(?:href|src)="([^"]+\.(?:js|css|svg))"', (WEB / "index.html").read_text(encoding="utf-8")
    )
    assert len(named) > 5
    assert [name for name in named if not (WEB / name).is_file()] == []


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
