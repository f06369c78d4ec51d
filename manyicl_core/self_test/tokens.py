"""What a base model's tokenizer must have."""

from pathlib import Path

from transformers import AutoTokenizer

from manyicl_core.base_models.tokenizer import load_encoder, load_raw_tokenizer
from manyicl_core.method.encoding import STOP


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
    if not load_raw_tokenizer(folder).encode(STOP, add_special_tokens=False).ids:
        raise WrongFiles("its tokenizer has no token for a line break, which ends an answer")
    stop = load_encoder(folder).stop
    text = load_raw_tokenizer(folder).decode([stop], skip_special_tokens=False)
    if STOP not in text:
        raise WrongFiles(f"its tokenizer makes {text!r} of a line break, which ends an answer")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise WrongFiles("its tokenizer names no token that ends a text; add eos_token to tokenizer_config.json")
