"""What is downloaded of an export: everything that belongs to it, and nothing else."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from smartcash.domain.errors import RunNotFound
from smartcash.domain.exports import ExportRecord
from smartcash.handlers.exports import RECORDS, Exports


def recorded(folder: Path, file: str, companions: list[str]) -> Exports:
    folder.mkdir()
    facts = ExportRecord(
        file, "openvino", "fp32", False, None, 320, "verified", "", 3, "best.pth", "", "", 1.0, {},
        companions=companions,
    ).to_dict()  # fmt: skip
    (folder / RECORDS).write_text(json.dumps([facts]))
    return Exports(folder, folder.parent)


def packed(exports: Exports, file: str) -> dict[str, bytes]:
    target = BytesIO()
    exports.pack(file, target)
    with ZipFile(target) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_download_holds_every_part_the_metadata_and_the_proof(tmp_path: Path) -> None:
    """A19: an OpenVINO file without its .bin could not be loaded."""
    exports = recorded(tmp_path / "exports", "net.xml", ["net.bin"])
    names = ("net.xml", "net.bin", "net.xml.json", "net.xml.proof.safetensors")
    for name in (*names, "other.onnx"):
        (exports.folder / name).write_bytes(name.encode())
    assert packed(exports, "net.xml") == {name: name.encode() for name in names}


def test_a_record_that_names_what_lies_elsewhere_gives_nothing_of_it(tmp_path: Path) -> None:
    """D12: a run folder may come from anywhere."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    exports = recorded(tmp_path / "exports", "net.xml", ["../secret", str(secret), "link"])
    (exports.folder / "net.xml").write_bytes(b"net")
    (exports.folder / "link").symlink_to(secret)
    assert packed(exports, "net.xml") == {"net.xml": b"net"}
    with pytest.raises(RunNotFound):
        packed(exports, "../secret")
