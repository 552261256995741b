"""Two kinds of servers that stand between a browser and the studio: one beneath a path, one that holds streams back."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_OF_THE_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


@contextmanager
def proxied(port: int, prefix: str = "", *, holds_back: bool = False) -> Iterator[str]:
    """The address under which the server at `port` is reached through a proxy. `prefix` is taken off, and the server
    is asked by its internal name, as Jupyter's and Colab's proxies do. `holds_back`: an answer is passed on when it
    is whole, so an endless one never comes."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {**dict(self.headers.items()), "Host": f"127.0.0.1:{port}", "Connection": "close"}
            server = http.client.HTTPConnection("127.0.0.1", port)
            server.request(self.command, self.path[len(prefix) :] or "/", body, headers)
            answer = server.getresponse()
            whole = answer.read() if holds_back else None
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_THE_HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                if whole is not None:
                    self.wfile.write(whole)
                while whole is None and (part := answer.read1(65536)):
                    self.wfile.write(part)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the browser has left
            finally:
                server.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        def log_message(self, *args: object) -> None:
            """Nothing on the terminal."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A server that is killed while a stream is passed on is part of the tests."""

    proxy = Quiet(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}{prefix}"
    finally:
        proxy.shutdown()
        proxy.server_close()
