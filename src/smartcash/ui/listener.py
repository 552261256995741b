"""Where a server listens."""

from __future__ import annotations

import os
import socket

BACKLOG = 128  # connections that wait to be accepted


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port` (0: a free one). Raises OSError when it is taken or there is no such
    address: as `socket.create_server`, but in the system's own words, which are translated."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":  # elsewhere this would take a port away from whoever has it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
