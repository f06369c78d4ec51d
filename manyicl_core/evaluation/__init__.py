"""How good a model is at each task, against the number of shots, base beside tuned."""
