"""What a base model's tokenizer must have."""

from pathlib import Path

from manyicl_core.base_models import tokenizer
from manyicl_core.base_models.tokenizer import UnsupportedTokenizer


class WrongFiles(Exception):
    """What a model's files lack, and where known what to do."""


def check_tokenizer(folder: Path) -> None:
    """Look at the files, the end of a text, and the line break, which ends an answer.

    Raises:
        WrongFiles: the model cannot be used with it.
    """
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise WrongFiles(f"there is no {name} in {folder}; add the one of its makers")
    try:
        tokenizer.check_tokenizer(folder)
    except UnsupportedTokenizer as error:
        raise WrongFiles(str(error)) from error
