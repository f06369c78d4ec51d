"""Other trainers and servers, each in an environment of its own under ``.bench``."""
