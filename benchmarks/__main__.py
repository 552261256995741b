"""`python -m benchmarks [name …] [--small]`: all benchmarks or the named ones, each in a process of its own.

Machines differ and are noisy: quote the ratios, which come from one run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

# checkpoint_faults is not among them: it needs a compiled shim, see its first lines
NAMES = (
    "startup",
    "pipeline",
    "data_health",
    "kernels",
    "crowded",
    "throughput",
    "checkpoint_speed",
    "run_store",
    "scale",
    "export_parity",
    "serving",
    "advice",
)


def main() -> int:
    """Run them one after the other; 1 if any of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--small", action="store_true", help="a few steps only: to see that they run")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = []
    for name in options.names or NAMES:
        print(f"\n=== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--small"] if options.small else [])]
        if subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
