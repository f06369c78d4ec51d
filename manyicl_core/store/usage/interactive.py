"""What the api serves, collected in memory: no answer waits for a row."""

import threading
from collections import Counter
from collections.abc import Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError

from manyicl_core.store.session import transaction
from manyicl_core.store.usage.service import add_usage

_log = structlog.get_logger(__name__)


class InteractiveUsage:
    """What was served since it was last written; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: dict[str, Counter[str]] = {}

    def add(self, project_id: str, amounts: Mapping[str, int]) -> None:
        """Count, without touching the database."""
        with self._lock:
            self._amounts.setdefault(project_id, Counter()).update(amounts)

    def write(self) -> None:
        """Write what was collected; while the database is away it is kept for the next time."""
        with self._lock:
            amounts, self._amounts = self._amounts, {}
        if not amounts:
            return
        try:
            with transaction() as session:
                for project_id in sorted(amounts):
                    add_usage(session, project_id, amounts[project_id])
        except SQLAlchemyError as error:
            _log.warning("usage_not_written", reason=str(error).splitlines()[0])
            for project_id, counts in amounts.items():
                self.add(project_id, counts)
