"""Answers of a fine-tuned model without the service: a copy lies in every download that is a folder.

    python predict.py --task triage "Where is my parcel?"

It needs torch, transformers and peft. The prompt is what the model was trained on: the task's
instruction and demonstrations, as manyicl.json tells them, then the input. More demonstrations
answer better; --examples takes the lines of a training file.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils.hub import cached_file

FOLDER = Path(__file__).resolve().parent
PIECE = 512  # prompt tokens in one pass: a pass keeps a score of every word of the vocabulary for each


class Encoder:
    """Token ids of prompts and answers, each part of which is encoded by itself, so that no token spans two."""

    def __init__(self, tokenizer: Tokenizer, template: dict[str, Any]) -> None:
        tokenizer.encode_special_tokens = True  # what looks like one in a text is text
        self._tokenizer = tokenizer
        self._template = template
        self._escapes: dict[str, str] = template["escapes"]
        self._unescapes = {escape: text for text, escape in self._escapes.items()}
        self.start: list[int] = tokenizer.encode("", add_special_tokens=True).ids
        self.stop = self._ids(template["stop"])[-1]

    def prompt(
        self, instruction: str, demonstrations: Iterable[dict[str, Any]], text: str, max_tokens: int
    ) -> list[int]:
        """The instruction, as many whole demonstrations as fit, and the input, up to where its answer starts."""
        ids = list(self.start)
        if instruction.strip():
            ids += self._ids(self._template["instruction"].format(instruction=instruction.strip()))
        query = self._input(text)
        for demonstration in demonstrations:
            shown = self._demonstration(demonstration)
            if len(ids) + len(shown) + len(query) > max_tokens:
                break
            ids += shown
        return ids + query

    def answer(self, text: str) -> list[int]:
        """An answer on one line, with the token that ends it; line breaks and backslashes are escaped."""
        escaped = _replaced(text.strip(), self._escapes)
        return [*self._ids(self._template["answer"].format(output=escaped)), self.stop]

    def text(self, ids: list[int]) -> str:
        """What the ids of an answer say."""
        line = self._tokenizer.decode(ids).split("\n")[0].strip()
        return _replaced(line, self._unescapes)

    def _demonstration(self, demonstration: dict[str, Any]) -> list[int]:
        """One example with the exchanges before it, if it ends a conversation."""
        ids = []
        for turn in [*demonstration.get("earlier", []), demonstration]:
            ids += [*self._input(turn["input"]), *self.answer(turn["output"]), *self._ids(self._template["separator"])]
        return ids

    def _input(self, text: str) -> list[int]:
        return self._ids(self._template["prompt"].format(input=text.strip()))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _replaced(text: str, table: dict[str, str]) -> str:
    """The text with every key of the table, the first that fits at a place, replaced by its value."""
    return re.sub("|".join(map(re.escape, table)), lambda match: table[match[0]], text)


@torch.inference_mode()
def most_probable(model: Any, prompt: list[int], answers: Sequence[list[int]]) -> int:
    """The position of the answer (token ids, the ending one included) that is the most probable as a whole."""
    first, past = _read(model, prompt, None)
    scores = []
    for answer in answers:
        logits = first[-1:]
        if len(answer) > 1:
            logits = torch.cat([logits, _read(model, answer[:-1], deepcopy(past))[0]])
        scores.append(logits.float().log_softmax(-1)[range(len(answer)), answer].sum().item())
    return scores.index(max(scores))


@torch.inference_mode()
def written(model: Any, prompt: list[int], stop: int, max_tokens: int) -> list[int]:
    """The ids of the greedy answer, without the one that ends it."""
    logits, past = _read(model, prompt, None)
    ends = model.generation_config.eos_token_id
    ends = {stop, *(ends if isinstance(ends, list) else [ends])}
    ids: list[int] = []
    while len(ids) < max_tokens and (token := int(logits[-1].argmax())) not in ends:
        ids.append(token)
        logits, past = _read(model, [token], past)
    return ids


def _read(model: Any, ids: list[int], past: Any) -> tuple[torch.Tensor, Any]:
    """Logits ``[tokens, vocabulary]`` of the last piece of ``ids``, and the cache after them."""
    for piece in torch.tensor([ids], device=model.device).split(PIECE, dim=1):
        output = model(input_ids=piece, past_key_values=past, use_cache=True)
        past = output.past_key_values
    return output.logits[0], past


def load_model(base: str) -> Any:
    """The model in this folder, or ``base`` with the adapter in this folder; float32 on a CPU."""
    model: Any
    if (FOLDER / "adapter_config.json").exists():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(FOLDER))
    else:
        model = AutoModelForCausalLM.from_pretrained(str(FOLDER))
    if torch.cuda.is_available():
        return model.to("cuda", torch.bfloat16).eval()
    return model.to("cpu", torch.float32).eval()


def load_tokenizer(base: str) -> Tokenizer:
    """The tokenizer in this folder; without one, that of the base model."""
    own = FOLDER / "tokenizer.json"
    return Tokenizer.from_file(str(own if own.exists() else cached_file(base, "tokenizer.json")))


def read_examples(path: Path, task: str) -> list[dict[str, Any]]:
    """The task's examples in the lines of a training file; lines that name no task are of any."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line for line in lines if line.get("task", task) == task]


def main() -> None:
    """Print the answer to each input on a line of its own."""
    told = json.loads((FOLDER / "manyicl.json").read_text(encoding="utf-8"))
    tasks = {task["name"]: task for task in told["tasks"]}
    parser = argparse.ArgumentParser(description="Ask the fine-tuned model in this folder.")
    parser.add_argument("input", nargs="+", help="what to answer")
    parser.add_argument("--task", choices=tasks, default=next(iter(tasks)), help="the first one, if not given")
    parser.add_argument("--examples", type=Path, help='demonstrations: a file of {"input": …, "output": …} lines')
    parser.add_argument("--base", default=told["base_model"], help="name or folder of the base model")
    parser.add_argument("--max-tokens", type=int, default=128, help="of an answer that is no label")
    options = parser.parse_args()

    task = tasks[options.task]
    examples = read_examples(options.examples, options.task) if options.examples else task["demonstrations"]
    encoder = Encoder(load_tokenizer(options.base), told["template"])
    model = load_model(options.base)
    for text in options.input:
        prompt = encoder.prompt(task["instruction"], examples, text, told["max_sequence_tokens"])
        if task["labels"]:
            answers = [encoder.answer(label) for label in task["labels"]]
            print(task["labels"][most_probable(model, prompt, answers)])
        else:
            print(encoder.text(written(model, prompt, encoder.stop, options.max_tokens)))


if __name__ == "__main__":
    main()
