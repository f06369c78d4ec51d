"""Our trainer's and our engine's forward passes over a base model, held against transformers' own.

Everything is computed in float32 and in one copy of the weights: first by transformers, then by the
trainer, and at last by the engine, which takes the model apart.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedConfig, PreTrainedModel

from manyicl_core.base_models.load import MissingWeights, load_base_model
from manyicl_core.base_models.shape import linear_layers, longest_sequence, prefix_bytes, read_config
from manyicl_core.base_models.tensor_files import tensors_of
from manyicl_core.base_models.tokenizer import load_encoder, load_tokenizer
from manyicl_core.contract.train_spec import LoraSpec
from manyicl_core.inference.compilation import compile_prefix
from manyicl_core.inference.decoding import answers
from manyicl_core.inference.language_model import LanguageModel, TunedModel
from manyicl_core.inference.prefix import Prefix
from manyicl_core.inference.scoring import LabelQuery, label_scores
from manyicl_core.inference.slots import Slots
from manyicl_core.inference.vocabulary import Vocabulary
from manyicl_core.self_test.reference import (
    EAGER,
    GREEDY_TOKENS,
    Step,
    reference_answer,
    reference_logits,
    reference_step,
    step_of,
)
from manyicl_core.self_test.tokens import WrongFiles
from manyicl_core.training.batches import IGNORED
from manyicl_core.training.loss import AnswerLoss
from manyicl_core.training.weights import add_adapter, save_weights

_TOKENS = 100
_PREFIX = 56
_ROWS = (9, 40, 1, 17)
_LABELS = (1, 2, 5)
_QUERIES = (("adapter", 0, 11), (None, 1, 3), ("adapter", 1, 27))
"""Adapter, document, and how much of it stands between prefix and label."""
_LORA = LoraSpec(rank=4, alpha=8)
_STRENGTH = 0.2
"""Of the adapter: what it adds to a matrix, by their sizes."""
_CLOSE = 1e-3
"""Logits differ by less than this part of their standard deviation, and gradients of their norm."""
_CLOSE_LOSS = 1e-4
_CLOSE_SCORE = 1e-3
"""Nats a token."""
_TEXT = """Sort the message of a customer by what the customer wants.

Input: the parcel came late, and 12 of the 30 boxes were open
Output: complaint
Input: Überraschung! Ça va? The new lamp is lovely, thank you.
Output: praise
Input: where can I see when order #4711 will arrive?
Output: question
Input: {"name": "Ann", "price": 3.50} means what, please?
Output: question
Input: nobody has answered my letter of 2 May, and the lamp hums every night
Output: complaint
"""


AdapterLogits = dict[str | None, torch.Tensor]
"""By adapter, None for the base model alone: float32 ``[documents, tokens, vocabulary]``."""


class Differs(Exception):
    """A part of what we compute is not what transformers computes, or could not be computed."""


@dataclass(slots=True)
class Subject:
    """The model under test, so far as it could be made."""

    folder: Path
    config: PreTrainedConfig
    model: PreTrainedModel | None = None


def compare(subject: Subject) -> None:
    """Run all comparisons.

    Raises:
        Differs: with the first that failed.
        WrongFiles: the files do not belong together.
    """
    documents = _documents(subject.folder)
    base = subject.model = _load(subject)
    ours = base.config._attn_implementation
    with _doing("transformers' own pass"):
        base.set_attn_implementation(EAGER)
        plain = reference_logits(base, documents)
    with _doing("adapting its linear layers"):
        adapted = add_adapter(base, "self-test", _LORA)
        _randomise(adapted)
    with _doing("transformers' own training step"):
        targets = (torch.arange(_TOKENS) % 3 == 1).expand(len(documents), -1)
        tuned, step = reference_step(adapted, documents, targets)
        continued = reference_answer(adapted, documents[0, :_PREFIX])
    with _doing("our training step"):
        base.set_attn_implementation(ours)
        _compare_steps(_our_step(adapted, documents, targets), step)
    with tempfile.TemporaryDirectory() as scratch:
        with _doing("saving the adapter"):
            save_weights(adapted, Path(scratch))
            adapted.unload()
            modules = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in step.gradients}
        with _doing("loading it into the engine"):
            model = LanguageModel(base)
            _compare_catalog(subject, model, modules)
        _compare_vocabulary(subject.folder, model.vocabulary)
        with _doing("serving the adapter"):
            model.attach("adapter", Path(scratch))
    _compare_engine(model, documents, {None: plain, "adapter": tuned}, continued)


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except (Differs, WrongFiles, MemoryError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        first = next(iter(str(error).splitlines()), "")[:200]
        reason = first if isinstance(error, AssertionError) and first else f"{type(error).__name__}: {first}"
        raise Differs(f"{what} fails: {reason}") from error


def _load(subject: Subject) -> PreTrainedModel:
    with _doing("loading its weights"):
        try:
            return load_base_model(subject.folder, torch.device("cpu"), torch.float32, config=subject.config)
        except MissingWeights as error:
            raise WrongFiles(str(error)) from error
        except RuntimeError as error:
            if "mismatched" in str(error):  # transformers has written which to its log
                raise WrongFiles("its weights have other sizes than its config.json says") from error
            raise


def _documents(folder: Path) -> torch.Tensor:
    """Two that begin alike, int64 ``[2, tokens]``."""
    encoder = load_encoder(folder)
    tokens = [*encoder.start, *encoder.tokenize(_TEXT)]
    tokens = (tokens * (1 + _TOKENS // len(tokens)))[:_TOKENS]
    return torch.tensor([tokens, [*tokens[:_PREFIX], *reversed(tokens[_PREFIX:])]])


def _randomise(adapted: PeftModel) -> None:
    """Give the adapter weights that change every answer, as large in every layer as its matrix asks for."""
    generator = torch.Generator().manual_seed(0)
    scale = _LORA.alpha / _LORA.rank
    layers: list[LoraLayer] = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        narrow, wide = (matrices["default"].weight for matrices in (layer.lora_A, layer.lora_B))
        assert isinstance(narrow, torch.Tensor) and isinstance(wide, torch.Tensor)
        weight = getattr(layer.get_base_layer(), "weight", None)
        size = 0.02 if weight is None else float(weight.std())  # experts keep theirs under other names
        rank, inputs = narrow.shape[0], narrow.shape[-1]
        torch.nn.init.normal_(narrow, std=inputs**-0.5, generator=generator)
        torch.nn.init.normal_(wide, std=_STRENGTH * size * (inputs / rank) ** 0.5 / scale, generator=generator)


def _our_step(adapted: PeftModel, documents: torch.Tensor, targets: torch.Tensor) -> Step:
    labels = documents.roll(-1, dims=1).masked_fill(~targets.roll(-1, dims=1), IGNORED)
    losses, _ = AnswerLoss(adapted)(documents, labels)
    return step_of(adapted, losses.mean())


def _compare_steps(ours: Step, theirs: Step) -> None:
    if abs(ours.loss - theirs.loss) > _CLOSE_LOSS * max(1.0, abs(theirs.loss)):
        raise Differs(f"the trainer's loss is {ours.loss:.3f} where transformers has {theirs.loss:.3f}")
    norm = _norm(theirs.gradients)
    difference = _norm({name: ours.gradients[name] - theirs.gradients[name] for name in theirs.gradients})
    if difference > _CLOSE * norm:
        raise Differs(f"the trainer's gradient is off by {difference / norm:.2%}")


def _norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())


def _compare_catalog(subject: Subject, model: LanguageModel, modules: set[str]) -> None:
    """What the service reads from the files, without torch, is what the model has."""
    config = read_config(subject.folder)
    layers = subject.config.get_text_config().num_hidden_layers
    size = 2 if config.get("dtype", config.get("torch_dtype")) in ("bfloat16", "float16") else 4
    if prefix_bytes(config) * layers * 4 != model.bytes_a_token * config["num_hidden_layers"] * size:
        raise Differs("its config.json says other sizes of keys and values than the model has")
    if longest_sequence(config) != model.max_tokens:
        raise Differs("its config.json says another length than the model has")
    tensors, names = tensors_of(subject.folder), linear_layers(subject.folder)
    if strange := sorted(m for m in modules if f"{m}.weight" not in tensors or m.rpartition(".")[2] not in names):
        raise Differs(f"its files have no weights of the adapted layer {strange[0]}")


def _compare_vocabulary(folder: Path, logits: int) -> None:
    with _doing("loading its tokenizer"):
        # Control tokens may be more, as those of pictures are: nobody's text holds them.
        tokens = load_tokenizer(folder).text_size
        if tokens > logits:
            raise WrongFiles(f"its tokenizer has {tokens} tokens and the model knows {logits}")
        Vocabulary(folder, logits)


def _compare_engine(model: LanguageModel, documents: torch.Tensor, logits: AdapterLogits, continued: list[int]) -> None:
    for adapter, theirs in logits.items():
        tuned = TunedModel(model, adapter)
        with _doing("the engine's pass"):
            ours = model.logits(tuned.states(documents[0]))
        _compare_logits("over one document", ours, theirs[0])
    tokens = documents.tolist()
    adapters = ["adapter", None, "adapter", None]
    with _doing("the engine's pass behind a prefix"):
        prefixes = {name: compile_prefix(TunedModel(model, name), tuple(tokens[0][:_PREFIX])) for name in adapters}
        slots = Slots(model)
        for _ in _ROWS:
            slots.take()
        which = [0, 1, 1, 0]
        new = [tokens[document][_PREFIX : _PREFIX + count] for document, count in zip(which, _ROWS, strict=True)]
        states = model.logits(slots.run(adapters, new, [prefixes[name] for name in adapters]))
    for part, adapter, document, count in zip(states.split(_ROWS), adapters, which, _ROWS, strict=True):
        theirs = logits[adapter][document, _PREFIX : _PREFIX + count]
        _compare_logits("behind a prefix, beside other rows", part, theirs)
    _compare_labels(model, tokens, prefixes, logits)
    with _doing("the engine's answer"):
        [answer] = answers(
            TunedModel(model, "adapter"), prefixes["adapter"].start(_PREFIX - 1), [[tokens[0][_PREFIX - 1]]],
            GREEDY_TOKENS, frozenset(),
        )  # fmt: skip
    if answer != continued:
        raise Differs(f"the engine's answer is {answer} where transformers' is {continued}")


def _compare_labels(
    model: LanguageModel, tokens: list[list[int]], prefixes: dict[str | None, Prefix], logits: AdapterLogits
) -> None:
    """Log-probabilities of labels that go on as a document does, after queries of several lengths."""
    with _doing("the engine's scores of labels"):
        queries = [
            LabelQuery(
                adapter,
                prefixes[adapter],
                tokens[document][_PREFIX : _PREFIX + count],
                [tokens[document][_PREFIX + count : _PREFIX + count + length] for length in _LABELS],
            )
            for adapter, document, count in _QUERIES
        ]
        scores = label_scores(model, queries)
    for (adapter, document, count), found in zip(_QUERIES, scores, strict=True):
        theirs = logits[adapter][document].log_softmax(dim=-1)
        for length, score in zip(_LABELS, found, strict=True):
            begin = _PREFIX + count
            known = sum(float(theirs[place - 1, tokens[document][place]]) for place in range(begin, begin + length))
            if abs(score - known) > _CLOSE_SCORE * length:
                raise Differs(f"the engine gives a label {score:.3f} where transformers gives {known:.3f}")


def _compare_logits(where: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    difference = float((ours - theirs).abs().max() / theirs.std())
    if not difference < _CLOSE:
        raise Differs(f"the engine's logits {where} are off by {difference:.3g} of their spread")
