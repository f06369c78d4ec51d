"""Log-probabilities of both engines, completion or chat, in the one shape that clients know."""

from typing import Any

from manyicl_core.answers.logprobs import chat_logprobs

OURS: dict[str, Any] = {
    "tokens": [" r", "é"],
    "token_ids": [7, 8],
    "token_logprobs": [-0.5, -1.0],
    "top_logprobs": [{" r": -0.5, " b": -2.0}, {"é": -1.0}],
    "text_offset": [0, 2],
    "bytes": [[32, 114], [195]],
    "top": [
        [
            {"token_id": 7, "token": " r", "bytes": [32, 114], "logprob": -0.5},
            {"token_id": 9, "token": " b", "bytes": [32, 98], "logprob": -2.0},
        ],
        [{"token_id": 8, "token": "é", "bytes": [195], "logprob": -1.0}],
    ],
}


def test_our_engines_tokens_keep_their_bytes():
    told = chat_logprobs(OURS, 2)
    assert told is not None
    assert told["refusal"] is None
    assert [(entry["token"], entry["logprob"], entry["bytes"]) for entry in told["content"]] == [
        (" r", -0.5, [32, 114]),
        ("é", -1.0, [195]),
    ]
    assert told["content"][0]["top_logprobs"] == [
        {"token": " r", "logprob": -0.5, "bytes": [32, 114]},
        {"token": " b", "logprob": -2.0, "bytes": [32, 98]},
    ]


def test_a_vllm_servers_alternatives_are_ranked_and_cut_to_what_was_asked():
    vllm = {name: OURS[name] for name in ("tokens", "token_logprobs", "text_offset")}
    vllm["top_logprobs"] = [{" b": -2.0, " r": -0.5}, {"é": -1.0}]
    told = chat_logprobs(vllm, 1)
    assert told is not None
    assert told["content"][0]["top_logprobs"] == [{"token": " r", "logprob": -0.5, "bytes": [32, 114]}]
    assert told["content"][1]["bytes"] == [195, 169]


def test_none_stays_none():
    assert chat_logprobs(None, 0) is None
