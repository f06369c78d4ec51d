"""Token ids as text and as bytes."""

from llguidance import LLTokenizer
from llguidance.hf import from_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


class Vocabulary:
    """One tokenizer in the forms that the engine needs it in.

    Args:
        size: how many logits the model gives; some have no token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        self._tokenizer = tokenizer
        self.texts: Tokenizer = tokenizer.backend_tokenizer
        self.grammars: LLTokenizer = from_tokenizer(tokenizer, n_vocab=size)
        assert isinstance(tokenizer.eos_token_id, int)
        self.end = tokenizer.eos_token_id

    def plain(self, text: str) -> list[int]:
        """A user's text, in which a special token is plain text, as in training."""
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Messages through the model's own chat template."""
        # Rendered first, then encoded: a template writes its special tokens out itself.
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, special ones as they are written."""
        return str(self.texts.decode(tokens, skip_special_tokens=False))

    def bytes(self, token: int) -> list[int]:
        """The bytes of one token: not always whole characters."""
        return list(self.grammars.decode_bytes([token]))
