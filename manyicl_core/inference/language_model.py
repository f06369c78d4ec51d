"""One base model in memory, with any number of LoRA adapters beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from manyicl_core.base_models.shape import longest_sequence
from manyicl_core.inference.frozen_linear import FrozenLinear
from manyicl_core.inference.fused_layers import fuse_layers
from manyicl_core.inference.lora_bank import LoraBank
from manyicl_core.inference.row_attention import ROW_ATTENTION, Layers, Pass


class LanguageModel:
    """A frozen base model; its adapters are never merged, and one forward pass may use several."""

    def __init__(self, base: PreTrainedModel) -> None:
        kinds = set(getattr(base.config, "layer_types", None) or [_kind_of_all_layers(base.config)])
        # Sliding windows and linear attention forget: their prefixes cannot be shared so.
        assert kinds == {"full_attention"}, f"models with {', '.join(sorted(kinds))} cannot be hosted"
        base.set_attn_implementation(ROW_ATTENTION)
        self._base = base
        head = base.get_output_embeddings()
        self._head = FrozenLinear(head.weight.data, None if head.bias is None else head.bias.data)
        base.set_output_embeddings(nn.Identity())  # what nobody reads any more leaves memory
        self._bank = LoraBank(fuse_layers(base))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._base.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, which is the keys' and values'."""
        return self._base.dtype

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model's positions cover."""
        return longest_sequence(self._base.config.to_dict())

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return self._head.outputs

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return int(self._base.config.num_attention_heads // self._heads[0])

    @property
    def bytes_a_token(self) -> int:
        """Memory that a token's keys and values take."""
        config = self._base.config
        heads, size = self._heads
        return int(2 * config.num_hidden_layers * heads * size * self.dtype.itemsize)

    def new_layers(self, rows: int, tokens: int) -> Layers:
        """Room for the keys and values of ``rows`` rows of ``tokens`` tokens.

        Zeros: what is not attended to is multiplied by zero, and must not be infinite.
        """
        heads, size = self._heads
        shape = (rows, heads, tokens, size)

        def part() -> torch.Tensor:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

        return tuple((part(), part()) for _ in range(self._base.config.num_hidden_layers))

    def new_prefix(self, tokens: int) -> Layers:
        """The same for one row, which on a CPU leaves memory as a whole: malloc would keep it for later."""
        if self.device.type != "cpu":
            return self.new_layers(1, tokens)
        count, (heads, size) = self._base.config.num_hidden_layers, self._heads
        room = mmap(-1, tokens * self.bytes_a_token)  # zeros, as the system gives them
        parts = torch.frombuffer(room, dtype=self.dtype).view(count, 2, 1, heads, tokens, size)
        return tuple((keys, values) for keys, values in parts)

    @property
    def _heads(self) -> tuple[int, int]:
        """Key and value heads, and their size."""
        config = self._base.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return config.num_key_value_heads, size

    def attached(self, adapter: str) -> bool:
        """Whether ``adapter`` is in memory."""
        return adapter in self._bank

    def attach(self, adapter: str, folder: Path) -> None:
        """Load a PEFT adapter under a name.

        Raises:
            UnsupportedAdapter: it is not a plain LoRA adapter of this base.
        """
        self._bank.add(adapter, folder)

    def detach(self, adapter: str) -> None:
        """Free an adapter's memory."""
        self._bank.remove(adapter)

    @torch.inference_mode()
    def states(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        adapters: Sequence[str | None],
        lengths: Sequence[int],
        rows: Pass | None = None,
    ) -> torch.Tensor:
        """Run rows of new tokens, laid end to end.

        Args:
            tokens: int64 ``[tokens]``; so are ``positions``, each counted from its row's first token.
            adapters: each row's adapter, None for the base alone.
            lengths: each row's new tokens.
            rows: where the rows' earlier keys and values are; None: one document from its start.

        Returns:
            the last layer's states, ``[tokens, hidden]``.
        """
        self._bank.select(adapters, lengths)
        output = self._base.base_model(
            input_ids=tokens[None], position_ids=positions[None], use_cache=False, **({"rows": rows} if rows else {})
        )
        # A model that does not hand the rows on to its attention would answer without them.
        assert rows is None or rows.reads == len(rows.slots), "its layers do not hand on what attention needs to know"
        states = output.last_hidden_state[0]
        assert isinstance(states, torch.Tensor)
        return states

    @torch.inference_mode()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits, float32 ``[tokens, vocabulary]``, of states ``[tokens, hidden]``."""
        # Contiguous: torch otherwise copies a frozen head once a row (180 times slower at 32).
        return self._head(states.contiguous()).float()


def _kind_of_all_layers(config: PreTrainedConfig) -> str:
    """Of a model, Mistral for example, whose configuration does not say it layer by layer."""
    return "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A language model with one of its attached adapters, or with none."""

    language_model: LanguageModel
    adapter: str | None = None

    def states(self, document: torch.Tensor) -> torch.Tensor:
        """The last layer's states ``[tokens, hidden]`` of one document, int64 ``[tokens]``."""
        model = self.language_model
        document = document.to(model.device)
        positions = torch.arange(len(document), device=model.device)
        return model.states(document, positions, [self.adapter], [len(document)])
