"""Label probabilities from a vLLM server: one token at every node of the label tree.

Never by ``prompt_logprobs``: vLLM then reads no prefix cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# vLLM takes at most so many ``logprob_token_ids`` a request (sampling_params.py, 0.32).
MAX_TOKEN_IDS = 128

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Nodes whose next tokens one request asks for: paths from the tree's root, and token ids."""

    nodes: list[Path] = field(default_factory=list)
    tokens: set[int] = field(default_factory=set)


def packs(labels: Sequence[Sequence[int]], limit: int = MAX_TOKEN_IDS) -> list[Pack]:
    """Every edge of the label tree, in as few requests as the limit of token ids a request allows."""
    edges: dict[Path, list[int]] = {}
    for label in labels:
        for length, token in enumerate(label):
            children = edges.setdefault(tuple(label[:length]), [])
            if token not in children:
                children.append(token)
    made = [Pack()]
    for node, children in edges.items():
        for start in range(0, len(children), limit):
            part = set(children[start : start + limit])
            if len(made[-1].tokens | part) > limit:
                made.append(Pack())
            made[-1].nodes.append(node)
            made[-1].tokens.update(part)
    return made


def pack_request(pack: Pack, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The fields of a completion that asks a pack's nodes behind every prompt, prompt by prompt."""
    return {
        "prompt": [[*prompt, *node] for prompt in prompts for node in pack.nodes],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 1,
        "logprob_token_ids": sorted(pack.tokens),
        "return_tokens_as_token_ids": True,
    }


def edge_scores(pack: Pack, choices: Sequence[dict[str, Any]]) -> list[dict[tuple[Path, int], float]]:
    """For every prompt the log-probability of each (node, token) of the pack, out of the answer's choices."""
    scores: list[dict[tuple[Path, int], float]] = []
    ordered = sorted(choices, key=lambda choice: int(choice["index"]))
    for start in range(0, len(ordered), len(pack.nodes)):
        of_prompt = {}
        for node, choice in zip(pack.nodes, ordered[start : start + len(pack.nodes)], strict=True):
            top = choice["logprobs"]["top_logprobs"][0]
            for name, logprob in top.items():
                of_prompt[node, int(name.removeprefix("token_id:"))] = float(logprob)
        scores.append(of_prompt)
    return scores


def label_score(label: Sequence[int], edges: dict[tuple[Path, int], float]) -> float:
    """The log-probability of a whole label."""
    return math.fsum(edges[tuple(label[:length]), token] for length, token in enumerate(label))
