"""TRL's SFTTrainer as a side of a benchmark: ``python -m benchmarks.peers.trl_sft CONFIG``.

Runs in TRL's own environment, so nothing of ours but ``benchmarks.turns`` is imported. ``CONFIG``
is JSON: ``model_folder``, ``adapter_folder`` (where both sides start from), ``rows`` (a list of
``input_ids`` and ``labels``, one a step), ``dtype``, ``threads``, ``learning_rate`` and
``gradient_checkpointing``. The rest is TRL's default.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.turns import Channel


class RecordingTrainer(SFTTrainer):
    """Keeps what each step saw and lost; logging would round the loss."""

    def training_step(self, model, inputs, *args, **kwargs):
        """A step as TRL makes it."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.step_report = {
            "loss": loss.detach(),
            "tokens": inputs["input_ids"].numel(),
            "target_tokens": (inputs["labels"][:, 1:] != -100).sum(),
        }
        return loss


class TakeTurns(TrainerCallback):
    """One optimizer step a turn; what comes between two steps counts to the earlier one."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.trainer: RecordingTrainer | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        """Report the step before, and wait for the next turn."""
        figures = {name: float(value) for name, value in getattr(self.trainer, "step_report", {}).items()}
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            figures["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        self.channel.report(**figures)
        self.channel.wait()


def main() -> None:
    """Train on the rows, in their order."""
    channel = Channel()
    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    dtype = getattr(torch, config["dtype"])
    base = AutoModelForCausalLM.from_pretrained(config["model_folder"], dtype=dtype, attn_implementation="sdpa")
    turns = TakeTurns(channel)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RecordingTrainer(
            model=PeftModel.from_pretrained(base, config["adapter_folder"], is_trainable=True),
            processing_class=AutoTokenizer.from_pretrained(config["model_folder"]),
            train_dataset=Dataset.from_list(config["rows"]),
            callbacks=[turns],
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=1,
                max_steps=len(config["rows"]),
                learning_rate=config["learning_rate"],
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=1.0,
                use_cpu=not torch.cuda.is_available(),
                bf16=dtype == torch.bfloat16,
                gradient_checkpointing=config["gradient_checkpointing"],
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                train_sampling_strategy="sequential",
                dataloader_num_workers=0,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
        )
        turns.trainer = trainer
        trainer.train()


if __name__ == "__main__":
    main()
