"""What was found of the archive's grants for a stack's datasets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .model import DATASETS_GRANTED, Condition, Stack, StackStatus
from .state import run_of


@dataclass(frozen=True)
class Finding:
    """What was found of the archive's grants in one run of a stack.

    Attributes:
        uid: the stack's.
        run: the run.
        word: the condition's status: True, False or Unknown.
        reason: the condition's reason.
        message: its sentences for people.
        revoked: the datasets whose copies nobody sees any more.
        returned: those whose copies were deleted and that are granted again.
    """

    uid: str
    run: str
    word: str
    reason: str
    message: str
    revoked: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()

    def applied(self, stack: Stack, time: datetime) -> StackStatus:
        """The status of a stack with it; unchanged where the finding is of another run.

        Args:
            stack: the stack.
            time: now.
        """
        status = stack.status
        if (self.uid, self.run) != (stack.uid, run_of(stack)):
            return status
        old = status.condition(DATASETS_GRANTED)
        condition = Condition(
            type=DATASETS_GRANTED,
            status=self.word,
            reason=self.reason,
            message=self.message,
            last_transition_time=old.last_transition_time if old and old.status == self.word else time,
            observed_generation=stack.generation,
        )
        return status.replace(
            conditions=(*(c for c in status.conditions if c.type != DATASETS_GRANTED), condition),
            revoked_datasets=self.revoked,
            imported_datasets=tuple(n for n in status.imported_datasets if n not in self.returned),
            dataset_projects=tuple(p for p in status.dataset_projects if p.name not in self.returned),
        )
