"""`Company`: the processes of one evaluation, which wait for each other and fail together."""

from __future__ import annotations

import contextlib
import itertools
import time

from ..distributed import count_together, process_share
from .verdicts import TOGETHER

WAIT = 0.05  # seconds between two looks at who has come
_numbers = itertools.count()


class Company:
    """All processes of an evaluation, from where it begins to its end.

    Who is done waits for the others for as long as they take, while collectives of torch give up after minutes. Who
    meets an error tells the others, who would wait for ever.

    Attributes:
        name (`str`): Under which they count who has come.

    Example:
        >>> with Company() as company:
        ...     company.meet()  # the only process waits for nobody
    """

    def __init__(self):
        self.name = f"hf_pmgaft/company/{next(_numbers)}"
        self._meetings = itertools.count()

    def __enter__(self) -> Company:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is not None and process_share()[1] > 1:
            with contextlib.suppress(RuntimeError):  # of a process that is gone; the error at hand is the one to see
                count_together(f"{self.name}/failed", 1)

    def meet(self) -> None:
        """Waits until every process is here.

        Raises:
            RuntimeError: if another process has failed, or is gone.
        """
        processes = process_share()[1]
        if processes == 1:
            return
        meeting = f"{self.name}/{next(self._meetings)}"
        arrived = count_together(meeting, 1)
        while arrived < processes:
            if count_together(f"{self.name}/failed", 0):
                raise RuntimeError(f"Another process has failed, and says why itself. {TOGETHER}")
            time.sleep(WAIT)
            arrived = count_together(meeting, 0)
