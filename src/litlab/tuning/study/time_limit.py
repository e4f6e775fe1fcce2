"""How long a study may still begin trials."""

import time

from litlab.training.callbacks.budget import seconds as span
from litlab.tuning.study.study import TrialStudy

SPENT = "seconds"  # attribute of a study: how long its time limit has run


class TimeLimit:
    """The time limit of a study, earlier commands' time included.

    A limit that has run out begins anew with the next command, so that this goes on too; but not
    with one that only helps.

    Args:
        study: Remembers the time.
        limit: Such as "10m".
        helps: Whether this command has joined another's study.
    """

    def __init__(self, study: TrialStudy, limit: str | None, *, helps: bool) -> None:
        self.study, self.limit = study, float(span(limit)) if limit else float("inf")
        self.helps = helps
        before = float(study.study.user_attrs.get(SPENT, 0.0))
        self.before = 0.0 if before >= self.limit and not helps else before
        self.began = self.noted = time.monotonic()

    @property
    def _spent(self) -> float:
        return self.before + time.monotonic() - self.began

    @property
    def in_time(self) -> bool:
        """Whether another trial may be begun."""
        return self._spent < self.limit

    def note(self, *, now: bool = False) -> None:
        """Remember the time, every few seconds; a study without a limit needs none."""
        if (
            self.limit < float("inf")
            and not self.helps
            and (now or time.monotonic() - self.noted > 5.0)
        ):
            self.noted = time.monotonic()
            self.study.study.set_user_attr(SPENT, round(self._spent, 1))
