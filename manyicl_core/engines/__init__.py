"""Ask the processes that answer: our own engine, or a server of the same HTTP shape."""
