"""Shows; never computes. The web page's server, the stream of events, and the same in a notebook."""
