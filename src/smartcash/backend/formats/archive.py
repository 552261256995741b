"""Data sets in a zip: unpacked once into a cache folder, and only when it is safe."""

from __future__ import annotations

from pathlib import Path

from smartcash.domain.errors import DataInvalid


def unpacked(path: Path) -> Path:
    raise DataInvalid("data_path_file", path=str(path))
