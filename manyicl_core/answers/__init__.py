"""Body in, answer out: what a request asks of the engine, and how its answer is told. No web framework."""
