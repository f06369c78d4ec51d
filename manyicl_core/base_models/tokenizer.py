"""The encoder of a base model, made from its ``tokenizer.json``. No torch."""

from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from manyicl_core.method.encoding import STOP, Encoder


@lru_cache(maxsize=8)
def load_encoder(folder: Path) -> Encoder:
    """The encoder for the tokenizer in ``folder``.

    Special tokens that occur in users' text are encoded as plain text, so that an example cannot
    pretend to be a turn of a chat.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True

    def tokenize(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    stop = tokenize(STOP)[-1]
    start = tuple(tokenizer.encode("", add_special_tokens=True).ids)
    return Encoder(tokenize=tokenize, start=start, stop=stop)


@lru_cache(maxsize=8)
def load_raw_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder`` as the model's makers use it: special tokens in a text are recognised.

    For prompts that a client writes as a whole, chat template and all.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
