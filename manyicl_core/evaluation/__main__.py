"""Run one evaluation: ``python -m manyicl_core.evaluation FOLDER``; ``FOLDER/spec.json`` says what."""

import sys
from pathlib import Path

from manyicl_core.job_process import importing_torch, run_reporting

with importing_torch():
    from manyicl_core.contract.evaluation_spec import EvaluationSpec
    from manyicl_core.evaluation.run import evaluate


def main(folder: Path) -> int:
    """Run the evaluation over ``folder``."""
    spec = EvaluationSpec.model_validate_json((folder / "spec.json").read_text(encoding="utf-8"))
    return run_reporting(evaluate(spec, folder))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
