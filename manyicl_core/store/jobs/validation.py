"""Whether a job measures the loss on its validation file while it trains."""

from manyicl_core.base_models.tokenizer import load_encoder
from manyicl_core.errors import InvalidRequest
from manyicl_core.method.sequences import EncodedTask
from manyicl_core.method.tasks import Task
from manyicl_core.store.jobs.options import ValidationOptions
from manyicl_core.store.jobs.start import Start


def validation_of(start: Start, tasks: list[Task]) -> tuple[ValidationOptions | None, str | None]:
    """How the loss on the queries of trained tasks is measured, or None and, where there are some, why not.

    Raises:
        InvalidRequest: it was asked for, and there are no such queries, or one does not fit.
    """
    asked = start.options.validation
    validated = [task for task in tasks if task.definition.role == "train" and task.queries]
    if not validated:
        if asked is not None:
            raise InvalidRequest(
                "a validation needs examples of trained tasks that are not trained on; upload them as a file and "
                "name it in validation_file",
                "validation_file",
            )
        return None, None
    encoder = load_encoder(start.folder)
    too_long = [
        f"validation file, {problem}"
        for task in validated
        for problem in EncodedTask(task.model_copy(update={"demonstrations": task.queries}), encoder).check_fits(
            start.options.max_sequence_tokens
        )
    ]
    if too_long and asked is not None:
        raise InvalidRequest("\n".join(too_long[:20]), "validation_file", "example_too_long")
    if too_long:
        return None, too_long[0]
    return asked or ValidationOptions(), None
