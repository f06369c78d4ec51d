"""A base model of a few hundred kilobytes, made on the spot: no test needs the network or real weights."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MAX_POSITIONS = 2048
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

_SENTENCES = [
    "Input: the parcel came late and the box was open\nOutput: complaint\n\n",
    "Input: thank you, the new lamp is lovely\nOutput: praise\n\n",
    "Input: where can I see when my order will arrive?\nOutput: question\n\n",
    "Input: 12 pens at 3 each\nOutput: 36\n\n",
    "Sort the message of a customer by what the customer wants.\n\n",
    "The answer is positive, negative or neutral. Überraschung! Ça va?",
]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(folder: Path, hidden_size: int = 64) -> Path:
    """A random Llama with grouped heads and a byte-level tokenizer in ``folder``: the same bytes every time."""
    size, ids = save_tiny_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=hidden_size,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.2,  # large enough that the next token depends on all tokens before it
        **ids | {"pad_token_id": None},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def save_tiny_tokenizer(folder: Path) -> tuple[int, dict[str, int]]:
    """Write the tokenizer; gives how many tokens it has, and those that a model's configuration names."""
    tokenizer = _tokenizer()
    chat = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=_CHAT_TEMPLATE
    )
    chat.save_pretrained(folder)
    names = {"bos_token_id": "<|im_start|>", "eos_token_id": "<|im_end|>", "pad_token_id": "<|endoftext|>"}
    ids = {name: tokenizer.token_to_id(token) for name, token in names.items()}
    return tokenizer.get_vocab_size(), ids


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=384,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return tokenizer
