"""The licences of everything that `pip install smartcash` brings along."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LISTED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
DEVELOPMENT = ("test", "dev", "docs")  # tools that nobody gets who uses SmartCash
EXTRAS = {
    name: lines
    for name, lines in LISTED["project"]["optional-dependencies"].items()
    if name not in DEVELOPMENT
}
TABLE = tomllib.loads((Path(__file__).parents[2] / "requirements/licences.toml").read_text(encoding="utf-8"))
STRONG_COPYLEFT = re.compile(r"\bA?GPL|GNU (Affero )?General Public|\bSSPL", re.IGNORECASE)


def required(name: str) -> dict[str, Distribution]:
    """Every distribution that `name` needs on this machine, itself included, without its own extras."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        wanted, extra = waiting.pop()
        key = canonicalize_name(wanted)
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        found[key] = distribution(key)
        for line in found[key].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(requirement.name, more) for more in ("", *requirement.extras)]
    return found


def statements(package: Distribution) -> set[str]:
    """The licences that the metadata names, in SPDX's words where they are known; {"nothing"} for none."""
    metadata = package.metadata
    named = [metadata.get("License-Expression") or ""]
    whole = metadata.get("License") or ""
    if whole.strip() not in ("", "UNKNOWN") and "\n" not in whole.strip():  # some put the whole text there
        named.append(whole.strip())
    for classifier in metadata.get_all("Classifier", []):
        kind, *_, licence = classifier.split(" :: ")
        if kind == "License" and licence != "OSI Approved":
            named.append(licence)
    parts: set[str] = set()
    for name in filter(None, named):
        if name in TABLE["same_as"]:
            parts.add(TABLE["same_as"][name])
        else:
            split = (part.strip(" ()") for part in re.split(r"\b(?:AND|OR|WITH)\b", name))
            parts |= {TABLE["same_as"].get(part, part) for part in split if part}
    return parts or {"nothing"}


def licence_texts(package: Distribution) -> list[str]:
    """The package's own licence files: those beside its metadata, not those of code it bundles."""
    texts = []
    for file in package.files or []:
        own = file.parts[0].endswith(".dist-info") and len(file.parts) <= 3
        if own and re.match(r"(LICEN[CS]E|COPYING)", file.name, re.IGNORECASE):
            texts.append(file.locate().read_text(encoding="utf-8", errors="replace"))
    return texts


def objections(package: Distribution) -> list[str]:
    """What speaks against a package, each naming it and its licence."""
    name = canonicalize_name(package.metadata["Name"])
    rows = [row for row in TABLE["package"] if fnmatch(name, row["name"])]
    accepted = set(TABLE["allowed"]).union(*(row["says"] for row in rows))
    said, texts = statements(package), licence_texts(package)
    found = [f"{name}: {licence}" for licence in sorted(said - accepted)]
    found += [f"{name}: {licence}" for licence in sorted(said) if STRONG_COPYLEFT.search(licence)]
    found += [f"{name}: {text[:60].strip()!r}" for text in texts if STRONG_COPYLEFT.search(text[:400])]
    for row in rows:
        if "file" in row and "nothing" in said and not any(row["file"] in text for text in texts):
            found.append(f"{name}: no licence file says {row['file']!r}")
    return found


def made_up(folder: Path, metadata: str, licence: str = "") -> Distribution:
    """An installed package that exists only in `folder`."""
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n{metadata}\n")
    (info / "LICENSE").write_text(licence)
    (info / "RECORD").write_text("thing-1.0.dist-info/METADATA,,\nthing-1.0.dist-info/LICENSE,,\n")
    return PathDistribution(info)


def test_every_required_package_is_licensed_as_the_table_allows():
    """D16: permissive, or named with a reason in requirements/licences.toml."""
    packages = required("smartcash")
    assert {"torch", "timm", "numpy", "pillow", "huggingface-hub"} <= set(packages)
    assert [line for package in packages.values() for line in objections(package)] == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_of_an_extra_is_licensed_as_the_table_allows(extra):
    """D16: where the extra is installed."""
    packages = {}
    for line in EXTRAS[extra]:
        try:
            packages |= required(Requirement(line).name)
        except PackageNotFoundError as missing:
            pytest.skip(f'{missing.name} is not installed: pip install "smartcash[{extra}]"')
    assert [line for package in packages.values() for line in objections(package)] == []


@pytest.mark.parametrize(
    ("metadata", "licence", "objection"),
    [
        ("License-Expression: AGPL-3.0-only", "", "thing: AGPL-3.0-only"),
        ("License-Expression: MIT OR GPL-2.0-or-later", "", "thing: GPL-2.0-or-later"),
        ("License-Expression: MIT AND (LGPL-2.1-only OR BSD-3-Clause)", "", "thing: LGPL-2.1-only"),
        (
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
            "",
            "General Public",
        ),
        ("License: Our Own Licence", "", "thing: Our Own Licence"),
        ("License: UNKNOWN", "", "thing: nothing"),
        ("License: MIT", "GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3", "GNU AFFERO"),
    ],
)
def test_a_package_with_another_licence_is_named(tmp_path, metadata, licence, objection):
    """D16: the gate itself refuses what it should."""
    found = objections(made_up(tmp_path, metadata, licence))
    assert found
    assert objection in found[0]


@pytest.mark.parametrize(
    "metadata",
    [
        "License-Expression: Apache-2.0 WITH LLVM-exception AND BSD-2-Clause",
        "License: BSD",
        "License: Copyright the authors\n        Redistribution and use …\nClassifier: License :: OSI Approved :: MIT License",
    ],
)
def test_a_permissive_package_passes(tmp_path, metadata):
    """D16."""
    assert objections(made_up(tmp_path, metadata)) == []


def test_a_row_does_not_make_copyleft_pass(tmp_path, monkeypatch):
    """D16: AGPL and GPL fail whatever the table says."""
    monkeypatch.setitem(TABLE, "package", [{"name": "thing", "says": ["AGPL-3.0-only"], "reason": "none"}])
    assert objections(made_up(tmp_path, "License-Expression: AGPL-3.0-only")) == ["thing: AGPL-3.0-only"]


def test_a_package_that_names_no_licence_must_hold_the_sentence_of_its_row(tmp_path, monkeypatch):
    """D16: as for the bundled ImageNet weights."""
    row = {"name": "thing", "says": ["nothing"], "file": "Apache License", "reason": "metadata says UNKNOWN"}
    monkeypatch.setitem(TABLE, "package", [row])
    assert objections(made_up(tmp_path, "License: UNKNOWN", "All rights reserved")) != []


def test_every_row_of_the_table_gives_its_reason():
    """D16."""
    assert all(len(row["reason"]) > 20 for row in TABLE["package"])
