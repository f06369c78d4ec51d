"""Tokenizers of a few hundred tokens that differ from the tiny model's as those of other models do."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import BpeTrainer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_SENTENCES = [
    "▁Input:▁my▁bill▁is▁wrong▁Output:▁billing",
    "▁Input:▁the▁parcel▁is▁late▁Output:▁delivery",
    "▁billing▁bill▁delivery▁dark▁blue▁yes▁no",
]
_METASPACE = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


def sentencepiece(
    folder: Path,
    normalizer: Normalizer | None = None,
    added: Sequence[AddedToken] = (),
    chat_template: str | None = None,
) -> Path:
    """A tokenizer as Llama 2 has it: pieces with ``▁`` for a space, one before every text, and bytes for the rest."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainer = BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *BYTES], show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    written = json.loads(tokenizer.to_str())
    # Bytes are pieces of the model, and no added tokens.
    written["added_tokens"] = [token for token in written["added_tokens"] if token["content"] not in BYTES]
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.normalizer = normalizer or normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(_METASPACE)
    tokenizer.add_tokens(list(added))
    return _save(tokenizer, folder, chat_template)


def metaspace(folder: Path, added: Sequence[AddedToken] = (), chat_template: str | None = None) -> Path:
    """The same as its successors have it: the space is put before a text by the pre-tokenizer, once."""
    sentencepiece(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    written = json.loads(tokenizer.to_str())
    written["normalizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_tokens(list(added))
    return _save(tokenizer, folder, chat_template)


def _save(tokenizer: Tokenizer, folder: Path, chat_template: str | None) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "</s>", "bos_token": {"content": "<s>", "lstrip": False}, "chat_template": chat_template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
