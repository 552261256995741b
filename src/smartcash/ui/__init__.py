"""Shows; never computes. The only home of the web framework."""
