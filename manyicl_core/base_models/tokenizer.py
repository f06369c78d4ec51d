"""A base model's tokenizer, made from its ``tokenizer.json``: one to train, guide, score and host with. No torch."""

import json
import re
import secrets
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from manyicl_core.method.encoding import STOP, Encoder

_MARKERS = re.compile(r"[<>\[\]{}|]")


class UnsupportedTokenizer(ValueError):
    """The tokenizer cannot be worked with; the message says why, and what would help."""


class TextTokenizer:
    """One tokenizer in two readings: of users' text, and of prompts that hold the model's control tokens.

    Control tokens are all added tokens that are special or look like markup, as ``<think>`` does; runs of white space
    and words that were added to the vocabulary are text. In a user's text a control token is text: the tokenizer that
    reads it knows control tokens by other, secret names, so that none can be written, forged out of look-alikes by
    normalisation, or put together from parts.

    Attributes:
        raw: as the model's makers use it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UnsupportedTokenizer(f"{folder} has no tokenizer.json; convert the tokenizer with transformers first")
        written = path.read_text(encoding="utf-8")
        self.raw = Tokenizer.from_str(written)
        added = self.raw.get_added_tokens_decoder()
        self._contents = {id_: token.content for id_, token in added.items() if _is_control(token)}
        self._secret = {content: f"⟪{secrets.token_hex(16)}⟫" for content in self._contents.values()}
        self._plain = Tokenizer.from_str(_renamed(written, self._secret)) if self._secret else self.raw
        for tokenizer in (self.raw, self._plain):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        kept = all(self._plain.token_to_id(self._secret[content]) == id_ for id_, content in self._contents.items())
        assert kept, "a renamed token has its id"

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a user's text, no special token added and no control token read."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def prompt_ids(self, prompt: str, mark: str) -> list[int]:
        """Token ids of a prompt with control tokens; one that has a ``mark`` in it is text, and the mark is nothing."""
        read = self.raw.encode(prompt, add_special_tokens=False)
        if mark not in prompt and self.raw.normalizer is None:
            return list(read.ids)
        pieces, done = [], 0
        for id_, (start, end) in zip(read.ids, read.offsets, strict=True):
            content = self._contents.get(id_)
            # Look-alikes that normalisation makes a control token are not in the prompt as it is written.
            if content is not None and (place := prompt.find(content, start, end)) >= 0:
                pieces += [prompt[done:place], self._secret[content]]
                done = place + len(content)
        return self.text_ids("".join([*pieces, prompt[done:]]).replace(mark, ""))

    def marked(self, text: str, mark: str) -> str:
        """A user's ``text`` in which no control token is whole, by a ``mark`` after its first character.

        One that the prompt around the text could complete has a mark as well.
        """
        text = self._control_pattern.sub(lambda match: match[0][0] + mark + match[0][1:], text)
        end = len(text.rstrip())
        if begun := self._begun(text[:end]):
            text = text[: end - begun + 1] + mark + text[end - begun + 1 :]
        start = len(text) - len(text.lstrip())
        return text[:start] + mark + text[start:] if self._may_end(text[start:]) else text

    @cached_property
    def text_size(self) -> int:
        """One more than the largest id that a user's text may have."""
        return 1 + max(id_ for id_ in self.raw.get_vocab(with_added_tokens=True).values() if id_ not in self._contents)

    @cached_property
    def line_breaks(self) -> frozenset[int]:
        """The ids of all tokens that hold a line break."""
        ids = range(self.raw.get_vocab_size(with_added_tokens=True))
        texts = self.raw.decode_batch([[id_] for id_ in ids], skip_special_tokens=False)
        return frozenset(id_ for id_, text in zip(ids, texts, strict=True) if STOP in text)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of tasks.

        Raises:
            UnsupportedTokenizer: a line break cannot end an answer.
        """
        written = self.text_ids(STOP)
        stop = written[-1] if written else None
        if stop is None or self.raw.decode([stop], skip_special_tokens=False) != STOP:
            raise UnsupportedTokenizer(
                "the tokenizer does not know line breaks (it drops them, or takes them for white space), and a line "
                "break ends every answer; choose a base model whose tokenizer keeps them"
            )
        start = tuple(self.raw.encode("", add_special_tokens=True).ids)
        return Encoder(tokenize=self.text_ids, start=start, stop=stop)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        # The longest first, as the library looks for them.
        contents = sorted(self._secret, key=len, reverse=True)
        if not contents:
            return re.compile(r"(?!)")
        first = "".join(sorted({re.escape(content[0]) for content in contents}))
        either = "|".join(map(re.escape, contents))
        return re.compile(f"(?=[{first}])(?:{either})")  # some models have thousands: tried where one may start only

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(content[:length] for content in self._secret for length in range(1, len(content)))

    @cached_property
    def _endings(self) -> frozenset[str]:
        return frozenset(content[length:] for content in self._secret for length in range(1, len(content)))

    def _begun(self, text: str) -> int:
        """How many characters at the end of ``text`` begin a control token; the longest beginning, or 0."""
        longest = min(len(text), max(map(len, self._beginnings), default=0))
        return next((length for length in range(longest, 0, -1) if text[-length:] in self._beginnings), 0)

    def _may_end(self, text: str) -> bool:
        """Whether ``text`` starts with the end of a control token."""
        longest = min(len(text), max(map(len, self._endings), default=0))
        return any(text[:length] in self._endings for length in range(1, longest + 1))


@lru_cache(maxsize=8)
def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer in ``folder``.

    Raises:
        UnsupportedTokenizer: there is none.
    """
    return TextTokenizer(folder)


def load_encoder(folder: Path) -> Encoder:
    """The encoder for the tokenizer in ``folder``.

    Control tokens that occur in users' text are encoded as plain text, so that an example cannot pretend to be a turn
    of a chat.

    Raises:
        UnsupportedTokenizer: there is none, or a line break cannot end an answer.
    """
    return load_tokenizer(folder).encoder


def load_raw_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in ``folder`` as the model's makers use it: special tokens in a text are recognised.

    For prompts that a client writes as a whole, chat template and all.
    """
    return load_tokenizer(folder).raw


def end_token(folder: Path) -> int:
    """The id of the token that ends a text of the model.

    Raises:
        UnsupportedTokenizer: the tokenizer names none.
    """
    config = tokenizer_config(folder)
    content = token_text(config.get("eos_token"))
    end = None if content is None else load_tokenizer(folder).raw.token_to_id(content)
    if end is None:
        raise UnsupportedTokenizer(
            "the tokenizer names no token that ends a text; write its `eos_token` into tokenizer_config.json"
        )
    return end


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says; nothing where there is none."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    assert isinstance(config, dict)
    return config


def token_text(token: object) -> str | None:
    """The text of a token as a tokenizer's files write it: plain, or as an object with flags."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer that cannot be trained and hosted with.

    Raises:
        UnsupportedTokenizer: it is missing, does not know line breaks, or names no end of a text.
    """
    load_encoder(folder)
    end_token(folder)


def _is_control(token: AddedToken) -> bool:
    return token.special or _MARKERS.search(token.content) is not None


def _renamed(written: str, names: dict[str, str]) -> str:
    """A ``tokenizer.json`` in which tokens have other names, and the ids that they had."""
    content = json.loads(written)
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram
        for piece in vocabulary:
            piece[0] = names.get(piece[0], piece[0])
    else:
        model["vocab"] = {names.get(text, text): id_ for text, id_ in vocabulary.items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        # A model that could put the token together out of text has no merge for it any more.
        model["merges"] = [merge for merge in model["merges"] if not _is_merged(merge, names)]
    content["post_processor"] = None  # it names tokens, and adds none to a user's text
    return json.dumps(content, ensure_ascii=False)


def _is_merged(merge: str | list[str], names: Iterable[str]) -> bool:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return "".join(parts) in names or any(part in names for part in parts)
