"""Sample tasks and the demo."""
