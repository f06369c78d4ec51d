"""Run one evaluation: ``python -m manyicl_core.evaluation FOLDER``; ``FOLDER/spec.json`` says what."""

import sys
from pathlib import Path

from manyicl_core.job_process import run_reporting, wait_passively

wait_passively()

from manyicl_core.contract.evaluation_spec import EvaluationSpec  # noqa: E402
from manyicl_core.evaluation.run import evaluate  # noqa: E402


def main(folder: Path) -> int:
    """Run the evaluation over ``folder``."""
    spec = EvaluationSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    return run_reporting(evaluate(spec, folder))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
