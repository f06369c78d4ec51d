"""Token ids as text and as bytes."""

import json
from pathlib import Path

from llguidance import LLTokenizer
from tokenizers import Tokenizer

from manyicl_core.base_models.tokenizer import end_token, load_tokenizer


class Vocabulary:
    """The tokenizer in a base model's folder in the forms that the engine needs it in.

    Args:
        size: how many logits the model gives; some have no token, and a few tokens of some models no logit.

    Raises:
        UnsupportedTokenizer: there is no tokenizer, or it names no end of a text.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._tokenizer = load_tokenizer(folder)
        self.texts: Tokenizer = self._tokenizer.raw
        self._added = self.texts.get_added_tokens_decoder()
        self.end = end_token(folder)
        self.ends = frozenset({self.end, *_other_ends(folder)})
        most = max(size, self.texts.get_vocab_size(with_added_tokens=True))
        self.grammars = LLTokenizer(self.texts.to_str(), n_vocab=most, eos_token=self.end)

    def plain(self, text: str) -> list[int]:
        """A user's text, in which a control token is plain text, as in training."""
        return self._tokenizer.text_ids(text)

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, special ones as they are written."""
        return str(self.texts.decode(tokens, skip_special_tokens=False))

    def token_text(self, token: int) -> str:
        """The text of one token wherever it stands, its space included; � for parts of a character."""
        if token in self._added:
            return self.text([token])
        return bytes(self.bytes(token)).decode(errors="replace")

    def bytes(self, token: int) -> list[int]:
        """The bytes of one token: not always whole characters."""
        return list(self.grammars.decode_bytes([token]))


def _other_ends(folder: Path) -> list[int]:
    """The tokens that end an answer beside the end of a text, as that of a turn: those that generation stops at."""
    path = folder / "generation_config.json"
    ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    return [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]
