"""Speed, measured against peers and floors: `python -m benchmarks [name …] [--small]`."""

from smartcash.cli import shorten_waits

shorten_waits()  # as the command line does
