"""One module a noun; each function is an endpoint: it reads the request, calls one handler, and shows the answer."""
