"""The engine in float32 whatever the machine prefers: ``python -m benchmarks.engine_in_float32``."""

from unittest.mock import patch

import torch

from manyicl_core.inference.__main__ import main

if __name__ == "__main__":
    with patch("manyicl_core.inference.__main__.compute_dtype", lambda device: torch.float32):
        main()
