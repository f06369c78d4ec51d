"""A body for every route that takes one, shown in the documentation; a test sends each of them.

``file-tasks``, ``file-queries`` and ``file-requests`` stand for ids of uploaded files.
"""

from typing import Any

from manyicl_core.settings import DEFAULT_BASE_MODEL

_LINES = [
    '{"task": "triage", "input": "Where is my parcel?", "output": "delivery"}',
    '{"task": "triage", "input": "I was charged twice", "output": "billing"}',
]
_TRIAGE: dict[str, Any] = {
    "instruction": "Which desk answers this mail?",
    "labels": ["billing", "delivery"],
    "examples": [
        {"input": "Where is my parcel?", "output": "delivery"},
        {"input": "I was charged twice", "output": "billing"},
    ],
}
_JOB: dict[str, Any] = {
    "model": DEFAULT_BASE_MODEL,
    "training_file": "file-tasks",
    "validation_file": "file-queries",
    "suffix": "triage",
    "seed": 7,
    "manyicl": {"objective": "many_icl", "n_epochs": 1, "evaluation": {"shots": [0, 1], "queries": 10}},
}

EXAMPLES: dict[str, Any] = {
    "create_file": {"purpose": "fine-tune", "file": "\n".join(_LINES)},
    "create_upload": {
        "bytes": len("\n".join(_LINES)),
        "filename": "tasks.jsonl",
        "mime_type": "application/jsonl",
        "purpose": "fine-tune",
    },
    "create_upload_part": {"data": "\n".join(_LINES)},
    "complete_upload": {"part_ids": ["part-first"]},
    "create_job": _JOB,
    "plan_job": _JOB,
    "create_evaluation": {
        "models": [DEFAULT_BASE_MODEL],
        "training_file": "file-tasks",
        "validation_file": "file-queries",
        "shots": [0, 1],
        "queries": 10,
    },
    "create_context": {"model": DEFAULT_BASE_MODEL, "max_shots": 2, **_TRIAGE},
    "create_chat_completion": {
        "model": DEFAULT_BASE_MODEL,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_completion_tokens": 8,
    },
    "create_response": {
        "model": DEFAULT_BASE_MODEL,
        "instructions": "Be short.",
        "input": "Say hello.",
        "max_output_tokens": 8,
    },
    "create_completion": {
        "model": DEFAULT_BASE_MODEL,
        "prompt": "Two and two are",
        "max_tokens": 0,
        "echo": True,
        "logprobs": 1,
    },
    "create_classification": {
        "model": DEFAULT_BASE_MODEL,
        "input": ["My parcel is late", "The bill is wrong"],
        "manyicl": {"context": _TRIAGE},
    },
    "create_batch": {
        "input_file_id": "file-requests",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
    "create_webhook_endpoint": {
        "name": "triage",
        "url": "https://example.org/hooks",
        "event_types": ["fine_tuning.job.succeeded", "fine_tuning.job.failed"],
    },
    "update_webhook_endpoint": {"event_types": ["fine_tuning.job.failed", "batch.failed"]},
    "rotate_webhook_secret": {"keep_old_secret_active_for_24_hours": True},
    "test_webhook_endpoint": {"event_type": "batch.failed"},
    "create_permissions": {"project_ids": ["proj_other"]},
    "create_project": {"name": "support"},
    "rename_project": {"name": "customer-support"},
    "create_key": {"name": "nightly job", "scopes": ["read", "write"]},
    "change_key": {"scopes": ["read"]},
    "rotate_key": {"grace_seconds": 3600},
    "set_quotas": {"queued_jobs": 20, "training_tokens_per_day": None},
}
"""By operation id."""
