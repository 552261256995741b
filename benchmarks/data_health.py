"""How fast `smartcash data check` looks at a data set: reading it, looking at every picture, the page.

Without `SMARTCASH_PHOTOS` (a folder of data sets), drawn notes are checked. The files are in the system's
cache; the first, unmeasured round puts them there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import medians, options, print_table
from smartcash.backend.formats import read_dataset, verify_images
from smartcash.backend.health import examine, write_page
from smartcash.backend.samples import write_samples


def main() -> int:
    """Measure and print."""
    small = options(__doc__).small
    with tempfile.TemporaryDirectory() as folder:
        if named := os.environ.get("SMARTCASH_PHOTOS"):
            sets = [path for path in sorted(Path(named).iterdir()) if path.is_dir()]
        else:
            sets = [Path(folder) / "notes"]
            write_samples(sets[0], images=46 if small else 400)
        for path in sets:
            check(path, Path(folder) / "page.html", repeat=1 if small else 5)
    return 0


def check(path: Path, page: Path, repeat: int) -> None:
    """One table: each stage alone, and the whole check."""
    data = read_dataset(path)
    examined = examine(data)
    times = medians(
        {
            "read_dataset (every header and label)": lambda: read_dataset(path),
            "verify_images (every picture whole, for comparison)": lambda: verify_images(data),
            "examine (every picture at reduced size, all checks)": lambda: examine(data),
            "write_page (HTML with small pictures)": lambda: write_page(examined, page),
            "the whole check": lambda: examine(read_dataset(path)),
        },
        repeat,
    )
    count = len(data.samples)
    print_table(
        f"{path.name}: {count} pictures, up to {os.cpu_count()} threads",
        ("", "s", "images/s"),
        [(name, value, count / value) for name, value in times.items()],
    )


if __name__ == "__main__":
    sys.exit(main())
