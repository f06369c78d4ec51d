"""What every process that computes asks of the base model before it starts."""

from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.base_models.catalog import base_model_folder, is_pulled, known_base_models, missing_in
from manyicl_core.base_models.check import CheckFailed, Verdict, check_base_model
from manyicl_core.base_models.pull import PullFailed, pull_base_model
from manyicl_core.base_models.shape import UnsupportedBaseModel
from manyicl_core.base_models.tensor_files import BrokenTensors
from manyicl_core.settings import get_settings
from manyicl_core.store.models.base_files import OtherFiles, hold_base_model
from manyicl_core.store.session import transaction


class BaseModelRefused(RuntimeError):
    """Why nothing can start with this base model, and what to do."""


def ready_base_model(pull: bool, say: Callable[[str], None]) -> Verdict:
    """See that the base model is here and computed right.

    Args:
        pull: get it, if it is not here.

    Raises:
        BaseModelRefused: it is not, or cannot be used.
    """
    entry = known_base_models()[0]
    folder = base_model_folder(entry)
    try:
        if pull:
            pull_base_model(entry, say)
        elif not is_pulled(folder):
            known = folder == get_settings().model_folder
            raise BaseModelRefused(
                missing_in(folder) if known else f"{entry.id} is not on this machine; run `manyicl models pull`"
            )
        return check_base_model(entry, say)
    except (PullFailed, UnsupportedBaseModel, CheckFailed) as error:
        raise BaseModelRefused(str(error)) from error


def hold_files() -> None:
    """See that the base model's files are those that this installation's models were made on.

    Raises:
        BaseModelRefused: they are not.
    """
    entry = known_base_models()[0]
    folder = base_model_folder(entry)
    if not is_pulled(folder):
        return  # the requests that need it say so
    try:
        with transaction() as session:
            hold_base_model(session, entry.id, folder)
    except (OtherFiles, BrokenTensors, FileNotFoundError) as error:
        raise BaseModelRefused(str(error)) from error
    except SQLAlchemyError:
        return  # a database that is away for a moment keeps nothing from starting
