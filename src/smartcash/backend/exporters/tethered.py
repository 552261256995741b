"""A module or a script that ends when whoever began it does, whatever ended that; run by any Python, without SmartCash:

    python tethered.py pip install click
    python tethered.py converter.py JOB.json

Nothing is read from stdin: when it ends, so does this process, with everything that it has begun: it must lead a
session of its own.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_stdin() -> None:
    os.read(0, 1)
    if os.name != "nt":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    _, what, *arguments = sys.argv
    sys.argv = [what, *arguments]
    if what.endswith(".py"):
        runpy.run_path(what, run_name="__main__")
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)
