"""An id of a base model goes on meaning the files that models, contexts and jobs here were made on."""

import hashlib
from pathlib import Path

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from manyicl_core.base_models.tensor_files import weights_digest
from manyicl_core.store.job_states import FINAL
from manyicl_core.store.tables import BaseModelFiles, Context, Job, Model


class OtherFiles(RuntimeError):
    """The id has come to stand for other files."""


def hold_base_model(session: Session, base_model: str, folder: Path) -> None:
    """Remember the files in ``folder``, or see that they are those of before; what nothing was made on is forgotten.

    Raises:
        OtherFiles: adapters and contexts here belong to other weights, or to another tokenizer.
    """
    digest = hashlib.sha256(weights_digest(folder).encode() + (folder / "tokenizer.json").read_bytes()).hexdigest()
    session.execute(insert(BaseModelFiles).values(base_model=base_model, digest=digest).on_conflict_do_nothing())
    known = session.get_one(BaseModelFiles, base_model, with_for_update=True)
    if known.digest == digest:
        return
    made = (
        exists().where(Model.base_model == base_model),
        exists().where(Context.base_model == base_model, Context.state.not_in(FINAL - {"succeeded"})),
        exists().where(Job.base_model == base_model, Job.state.not_in(FINAL)),
    )
    if any(session.scalar(select(condition)) for condition in made):
        raise OtherFiles(
            f"{folder} holds other files than {base_model} had when models and contexts here were made on it: they "
            "would answer wrong. Put the former files back, or give these a name of their own (MANYICL_BASE_MODEL)"
        )
    known.digest = digest
