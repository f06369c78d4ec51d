"""Requests that share a context meet at one engine."""

from manyicl_core.engines.routing import ranked, routing_key

URLS = [f"http://engine-{n}" for n in range(5)]


def query(prompt: list[int], prefix: int = 3, model: str = "m") -> bytes:
    return routing_key({"model": model, "prompt": prompt, "prefix_tokens": prefix})


def test_queries_of_one_context_share_a_key_and_others_do_not():
    assert query([1, 2, 3, 4]) == query([1, 2, 3, 9, 9])
    assert query([1, 2, 3, 4]) != query([1, 2, 4, 4])
    assert query([1, 2, 3, 4]) != query([1, 2, 3, 4], model="n")


def test_prompts_without_a_context_spread_by_how_they_start():
    assert query([1, 2], prefix=0) == query([1, 2], prefix=0) != query([1, 3], prefix=0)


def test_label_scores_go_where_the_completions_of_their_context_go():
    scores = routing_key({"model": "m", "prompts": [[1, 2, 3, 7], [1, 2, 3, 8]], "prefix_tokens": 3})
    assert scores == query([1, 2, 3, 4])


def test_keys_spread_and_move_only_when_their_engine_goes():
    keys = [query([n, 0, 0]) for n in range(200)]
    first = [ranked(URLS, key)[0] for key in keys]
    assert min(first.count(url) for url in URLS) >= 20
    for key, url in zip(keys, first, strict=True):
        left = ranked([other for other in URLS if other != URLS[0]], key)
        assert left[0] == (url if url != URLS[0] else ranked(URLS, key)[1])
