"""One base model in memory, with any number of LoRA adapters beside it, one active at a time."""

from pathlib import Path

import torch
from peft import LoraModel, PeftModel
from transformers import DynamicCache, PreTrainedModel

from manyicl_core.base_models.lora import leave_inputs_to_autocast
from manyicl_core.inference.shared_prefix import SHARED_PREFIX_ATTENTION, Layers, SharedPrefix


class LanguageModel:
    """A frozen base model; adapters are attached unmerged and switched in milliseconds."""

    def __init__(self, base: PreTrainedModel) -> None:
        base.set_attn_implementation(SHARED_PREFIX_ATTENTION)
        self._base = base
        self._peft: PeftModel | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._base.device

    @property
    def dtype(self) -> torch.dtype:
        """The base weights' dtype, which is the cache's."""
        return self._base.dtype

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model's positions cover."""
        length = self._base.config.max_position_embeddings
        assert isinstance(length, int)
        return length

    def attached(self, adapter: str) -> bool:
        """Whether ``adapter`` is in memory."""
        return self._peft is not None and adapter in self._peft.peft_config

    def attach(self, adapter: str, folder: Path) -> None:
        """Load a PEFT adapter under a name."""
        if self._peft is None:
            self._peft = PeftModel.from_pretrained(self._base, str(folder), adapter_name=adapter)
        else:
            self._peft.load_adapter(str(folder), adapter_name=adapter)
        self._peft.eval()
        leave_inputs_to_autocast(self._peft)

    def detach(self, adapter: str) -> None:
        """Free an adapter's memory."""
        assert self._peft is not None
        self._peft.delete_adapter(adapter)

    def activate(self, adapter: str | None) -> None:
        """Answer with ``adapter`` from now on, or with the plain base model."""
        if self._peft is None:
            assert adapter is None
            return
        if adapter is None:
            self._layers.disable_adapter_layers()
        else:
            self._layers.enable_adapter_layers()
            self._peft.set_adapter(adapter)

    @property
    def _layers(self) -> LoraModel:
        assert self._peft is not None and isinstance(self._peft.base_model, LoraModel)
        return self._peft.base_model

    @torch.inference_mode()
    def hidden_states(
        self,
        tokens: torch.Tensor,
        cache: DynamicCache,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        prefix: Layers = (),
    ) -> torch.Tensor:
        """Run ``tokens`` (int64 ``[batch, length]``) after ``cache``, which grows by them.

        Args:
            attention_mask: int64 ``[batch, cached + length]``, 0 where a row is padded.
            position_ids: int64 ``[batch, length]``; needed with a prefix.
            prefix: keys and values that all rows attend to before what is in ``cache``.

        Returns:
            the last layer's states, ``[batch, length, hidden]``.
        """
        shared = {"shared_prefix": SharedPrefix(prefix)} if prefix else {}
        # Autocast: adapters are float32 and would else pull every layer's product up to it.
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype == torch.bfloat16):
            output = self._base.base_model(
                input_ids=tokens,
                past_key_values=cache,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=True,
                **shared,
            )
        # A model that does not hand the prefix on to its attention would answer without it.
        assert all(layers.reads == len(prefix) for layers in shared.values())
        states = output.last_hidden_state
        assert isinstance(states, torch.Tensor)
        return states

    @torch.inference_mode()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits, float32 ``[batch, vocabulary]``, of states ``[batch, hidden]``."""
        # Contiguous: torch otherwise copies a frozen head once a row (180 times slower at 32).
        logits = self._base.get_output_embeddings()(states.contiguous())
        assert isinstance(logits, torch.Tensor)
        return logits.float()
