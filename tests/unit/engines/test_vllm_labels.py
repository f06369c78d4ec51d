"""Label probabilities out of one token at every node of the label tree."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from manyicl_core.engines.vllm_labels import edge_scores, label_score, pack_request, packs

LABELS = [[5, 9], [5, 6, 9], [7, 9]]


def answered(request: dict[str, object], chance: random.Random) -> list[dict[str, object]]:
    """What a server says: a log-probability for every token asked, at every prompt."""
    tokens, prompts = request["logprob_token_ids"], request["prompt"]
    assert isinstance(tokens, list)
    assert isinstance(prompts, list)
    told = [{f"token_id:{token}": -chance.random() for token in tokens} for _ in prompts]
    return [{"index": index, "logprobs": {"top_logprobs": [top]}} for index, top in enumerate(told)]


def test_every_node_is_asked_for_its_next_tokens():
    [pack] = packs(LABELS)
    assert set(pack.nodes) == {(), (5,), (5, 6), (7,)}
    assert pack.tokens == {5, 6, 7, 9}
    request = pack_request(pack, [[1], [2]])
    assert request["prompt"] == [[1], [1, 5], [1, 5, 6], [1, 7], [2], [2, 5], [2, 5, 6], [2, 7]]
    assert (request["max_tokens"], "prompt_logprobs" in request) == (1, False)


def test_a_labels_score_is_the_sum_along_its_path():
    [pack] = packs(LABELS)
    choices = answered(pack_request(pack, [[1], [2]]), random.Random(0))
    first, second = edge_scores(pack, list(reversed(choices)))
    assert first != second
    for label in LABELS:
        path = [(tuple(label[:length]), token) for length, token in enumerate(label)]
        assert label_score(label, first) == math.fsum(first[edge] for edge in path)


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=4), min_size=1, max_size=30), st.integers(1, 8))
def test_no_request_asks_more_tokens_than_allowed_and_no_edge_is_left_out(labels: list[list[int]], limit: int):
    made = packs(labels, limit)
    assert all(len(pack.tokens) <= limit for pack in made)
    edges: dict[tuple[tuple[int, ...], int], float] = {}
    for pack in made:
        [scores] = edge_scores(pack, answered(pack_request(pack, [[1]]), random.Random(1)))
        edges |= scores
    for label in labels:
        assert label_score(label, edges) <= 0
