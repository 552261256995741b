"""Speed, measured against peers and floors: `python -m benchmarks [name …] [--small]`."""
