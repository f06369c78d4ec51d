"""A base model's own chat template: messages to token ids, in which what somebody says stays text. No torch."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from manyicl_core.base_models.tokenizer import load_tokenizer, token_text, tokenizer_config

_PRIVATE_USE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))


class BadChat(ValueError):
    """The messages have no prompt: the template refuses them, or the model has none."""


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant says; nothing of it is seen in the prompt."""

    tags = {"generation"}  # noqa: RUF012 - as the library declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """The template in a model's folder, rendered as transformers renders it."""

    def __init__(self, folder: Path) -> None:
        config = tokenizer_config(folder)
        source = _source(folder, config)
        if source is None:
            raise BadChat(
                "this base model has no chat template; ask for a task or give examples (`manyicl`), or ask "
                "/v1/completions"
            )
        self._tokenizer = load_tokenizer(folder)
        self._special = {
            name: text for name in config if name.endswith("_token") and (text := token_text(config[name]))
        }
        try:
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise BadChat(f"the base model's chat template cannot be read: {error}") from error

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The token ids of a prompt that ends where the assistant's answer to ``messages`` begins.

        Control tokens come from the template alone. What the messages say is marked wherever it could be taken for one,
        the template may trim or move it, and the marks say afterwards what is text. Without any the ids are those
        of the rendered text.

        Raises:
            BadChat: the template refuses the messages.
        """
        mark = _unused(messages)
        marked = [{name: self._tokenizer.marked(text, mark) for name, text in message.items()} for message in messages]
        return self._tokenizer.prompt_ids(self._render(marked), mark)

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._special
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise BadChat(f"the base model's chat template refuses these messages: {error}") from error


@lru_cache(maxsize=8)
def load_chat_template(folder: Path) -> ChatTemplate:
    """The chat template of the model in ``folder``.

    Raises:
        BadChat: it has none.
    """
    return ChatTemplate(folder)


def _source(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    written = config.get("chat_template")
    if isinstance(written, list):  # of several the one that has no special purpose
        written = {entry["name"]: entry["template"] for entry in written}.get("default")
    return written if isinstance(written, str) else None


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers has it (utils/chat_template_utils.py), so that every published template renders alike."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _unused(messages: Sequence[Mapping[str, str]]) -> str:
    """A character of private use that no message holds."""
    said = {character for message in messages for text in message.values() for character in text}
    unused = next((character for character in map(chr, _PRIVATE_USE) if character not in said), None)
    if unused is None:
        raise BadChat("the messages hold every character of private use that there is; leave some out")
    return unused
