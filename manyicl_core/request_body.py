"""What every body that a client sends is checked by."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class RequestBody(BaseModel):
    """A body, or a part of one, in which nothing is unknown and nothing is taken for something else.

    Clients write out optional fields that nobody set: ``null`` asks for what leaving the field out asks for.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, content: Any) -> Any:
        if not isinstance(content, dict) or None not in content.values():
            return content
        # Where null is the default already it stays, and a body still tells that it was sent.
        unsaid = {field.alias or name for name, field in cls.model_fields.items() if field.default is not None}
        return {name: value for name, value in content.items() if value is not None or name not in unsaid}
