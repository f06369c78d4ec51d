"""The ``manyicl`` object of a chat completion: which task or examples the query belongs to."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from manyicl_core.method.equality import visible
from manyicl_core.method.tasks import MAX_TEXT_CHARACTERS, ListedLabels, distinct_labels
from manyicl_core.regex_syntax import check_regex
from manyicl_core.request_body import RequestBody

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS, pattern=r"\S")]


class ContextExample(RequestBody):
    """One demonstration."""

    input: Text
    output: Text


class InlineContext(RequestBody):
    """A task given by demonstrations alone, in the order in which they are shown.

    With ``labels`` the answer is always one of them.
    """

    instruction: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)] = ""
    labels: Annotated[list[Text], Field(min_length=2, max_length=1000)] | None = None
    examples: list[ContextExample] = Field(default=[], max_length=10_000)

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: list[str] | None) -> list[str] | None:
        return None if labels is None else distinct_labels(labels)

    @model_validator(mode="after")
    def _outputs_are_labels(self) -> Self:
        if self.labels is not None:
            listed = ListedLabels(self.labels)
            for index, example in enumerate(self.examples):
                label = listed.find(example.output)
                if label is None:
                    raise ValueError(
                        f"examples[{index}].output, {visible(example.output[:60])}, is not one of the labels "
                        f"{listed.told()}; correct it or add the label"
                    )
                example.output = label
        return self


class ManyiclChat(RequestBody):
    """``task``, one of the tasks of a fine-tuned model's job, or a ``context``: a hosted one's id, or inline.

    Neither is needed when the request's model is itself a hosted context.
    With ``label_probabilities`` the answer tells how probable each label of a closed set is; with ``regex``
    it matches a regular expression, also where there are no demonstrations.
    """

    task: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    context: InlineContext | Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    max_shots: Annotated[int, Field(ge=0, le=10_000)] | None = None
    label_probabilities: bool = False
    regex: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None

    @field_validator("regex")
    @classmethod
    def _is_readable(cls, regex: str | None) -> str | None:
        if regex is not None:
            check_regex(regex)
        return regex

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.task is not None and self.context is not None:
            raise ValueError("give either task or context")
        return self

    @property
    def is_regex_alone(self) -> bool:
        """Whether nothing is said of demonstrations."""
        about_demonstrations = (self.task, self.context, self.max_shots, self.label_probabilities or None)
        return self.regex is not None and not any(value is not None for value in about_demonstrations)
