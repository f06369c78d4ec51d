"""The ids under which the tasks of a model are models."""

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
# What could be taken for a checkpoint of the model, or for another task's name with digits of its hash.
_TAKEN = re.compile(r"ckpt-step-.*|.*-[0-9a-f]{12}", re.IGNORECASE)


def task_model_id(model_id: str, task: str) -> str:
    """The public id of a model's task: ``<model>:<task>``.

    A task's name may hold any character; those that do not belong into an id become ``-``, and digits
    of the name's hash then keep ids apart.
    """
    if _PLAIN.fullmatch(task) and not _TAKEN.fullmatch(task):
        return f"{model_id}:{task}"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", task).strip("-")
    return f"{model_id}:{plain}-{hashlib.sha256(task.encode()).hexdigest()[:12]}"
