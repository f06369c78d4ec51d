"""What the command line prints to, and how it fails."""

from typing import NoReturn

import typer
from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """One clear line, and a failing status."""
    _err.print(f"manyicl: {message}", markup=False)
    raise typer.Exit(1)


def note(message: str) -> None:
    """A line for a person, beside what a script reads."""
    _err.print(message, markup=False)
