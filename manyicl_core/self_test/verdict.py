"""What is said of a base model after the comparison."""

from pathlib import Path

from transformers import PreTrainedConfig

from manyicl_core.base_models.tensor_files import BrokenTensors
from manyicl_core.self_test.causes import attention_of, named_causes
from manyicl_core.self_test.comparison import Differs, Subject, compare
from manyicl_core.self_test.excerpt import excerpt_config
from manyicl_core.self_test.tokens import WrongFiles, check_tokenizer


def reason_against(folder: Path) -> str | None:
    """Why the base model in ``folder`` cannot be used; None: it is computed right.

    Raises:
        MemoryError: there is not enough to tell.
    """
    try:
        config = excerpt_config(folder)
    except BrokenTensors as error:
        return str(error)
    except Exception as error:
        return f"transformers cannot read its config.json ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
    subject = Subject(folder, config)
    try:
        check_tokenizer(folder)
        compare(subject)
    except WrongFiles as error:
        return str(error)
    except Differs as error:
        return _explained(config, subject, error)
    return None


def _explained(config: PreTrainedConfig, subject: Subject, difference: Differs) -> str:
    causes = named_causes(config, subject.model)
    if causes:
        return f"{', and '.join(causes)}; that is not supported yet ({difference})"
    attention = attention_of(subject.model)
    return f"{difference}, and its configuration does not say why" + (f" (it has {attention})" if attention else "")
