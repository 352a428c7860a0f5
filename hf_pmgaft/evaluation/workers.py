"""`Workers`: processes that read rows of a set ahead of who asks for them, by torch's `DataLoader`."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from .loaded import Labelled, Loaded

LOTS_AHEAD = 2  # that each worker reads ahead
# How torch's errors begin of workers that are gone. A signal brings them, so that they may come up anywhere.
LOST = ("DataLoader worker (pid", "Pin memory thread exited")
SHARED_MEMORY = Path("/dev/shm")  # of Linux; elsewhere nothing is there
ADVICE = (
    "Pass fewer --num_workers (in Python num_workers, in training dataloader_num_workers), or give a container more "
    "shared memory, such as by `docker run --shm-size 8g`. What was judged is in the verdict file, if there is one, "
    "and the same call goes on from there."
)


class Request(NamedTuple):
    """A lot of rows, which of them a worker reads, and whether it computes digests."""

    rows: list[int]
    missing: list[int]
    with_digests: bool


class Workers:
    """Processes that read rows of a set. They start at the first stream and last until they are closed.

    Args:
        data (`Labelled`): The set, which each of them gets.
        count (`int`): How many.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> workers = Workers(ZeroShotDataset(dataset, processor, name="food"), count=1)
        >>> for request, loaded in workers.stream([Request([0, 2], [2], with_digests=False)]):
        ...     print(request.rows, loaded.rows, loaded.images.shape)
        [0, 2] [2] torch.Size([1, 3, 16, 16])
        >>> workers.close()
    """

    def __init__(self, data: Labelled, count: int):
        self.data = data
        self.count = count
        self._sampler = _Sampler()
        self._loader: DataLoader | None = None

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Loaded | None]]:
        """Gives each request with its missing rows, `None` if there are none; at most `LOTS_AHEAD` a worker are read
        ahead.

        Raises:
            RuntimeError: if a worker is gone.
            ValueError: if the set cannot be handed to a worker.
            Exception: what the set raises, at the request where it does.
        """
        if self._loader is None:
            self._loader = self._started()
        self._sampler.begin(requests)
        for answer in self._answers(self._loader):
            if isinstance(answer, _Failure):
                raise answer.error from RuntimeError(f"in a worker process:\n{answer.trace}")
            yield self._sampler.taken.popleft(), answer

    def raise_if_lost(self, error: BaseException | None) -> None:
        """Raises a clear `RuntimeError` in place of torch's if that tells of a worker that is gone."""
        if _tells_of_lost_worker(error):
            raise self._lost(error) from error

    def close(self) -> None:
        """Ends the processes, whatever they have not handed over."""
        loader, self._loader = self._loader, None
        iterator = getattr(loader, "_iterator", None)
        if iterator is None:
            return
        try:
            iterator._shutdown_workers()  # torch has no other way while a traceback still holds the iterator
        except RuntimeError as error:
            if not _tells_of_lost_worker(error):  # one that is gone has ended, too
                raise
        _free_shared_memory(worker.pid for worker in iterator._workers)

    def _answers(self, loader: DataLoader) -> Iterator[Loaded | _Failure | None]:
        try:
            yield from loader
        except (OSError, EOFError, RuntimeError) as error:
            # The pipe of a worker breaks before it is known to be gone.
            is_pipe = isinstance(error, (OSError, EOFError)) and error is not self._sampler.error
            if is_pipe or _tells_of_lost_worker(error):
                raise self._lost(error) from error
            raise

    def _lost(self, error: BaseException) -> RuntimeError:
        self.close()
        reason = str(error).strip().rstrip(".") or type(error).__name__
        return RuntimeError(
            f"A process that read images of {self.data.name!r} was killed ({reason}), as happens where memory or "
            f"shared memory does not suffice. {ADVICE}"
        )

    def _started(self) -> DataLoader:
        loader = DataLoader(
            _Rows(self.data),
            batch_size=None,
            sampler=self._sampler,
            num_workers=self.count,
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            prefetch_factor=LOTS_AHEAD,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its seed would be drawn from the one that training draws from
        )
        try:
            with _quiet_tokenizers(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Got pickle error")  # which the error below tells
                iter(loader)  # starts them, without a request yet
        except (pickle.PicklingError, TypeError, AttributeError, AssertionError, OSError) as error:
            raise ValueError(
                f"You passed num_workers={self.count}, but the set {self.data.name!r} cannot be handed to a worker "
                f"process ({type(error).__name__}: {error}). Pass num_workers=0, in training "
                "dataloader_num_workers=0."
            ) from error
        return loader


def _free_shared_memory(processes: Iterable[int]) -> None:
    """Removes what processes left that were killed between making a piece of shared memory and taking its name off."""
    for process in processes:
        for file in SHARED_MEMORY.glob(f"torch_{process}_*"):
            file.unlink(missing_ok=True)


class _Sampler:
    """The requests of the present stream; notes those that were taken, and what their source raised."""

    def __init__(self) -> None:
        self.begin(())

    def begin(self, requests: Iterable[Request]) -> None:
        """Begins a stream."""
        self.requests = requests
        self.taken: deque[Request] = deque()
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[Request]:
        try:
            for request in self.requests:
                self.taken.append(request)
                yield request
        except BaseException as error:
            self.error = error
            raise


def _tells_of_lost_worker(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith(LOST)


@contextlib.contextmanager
def _quiet_tokenizers() -> Iterator[None]:
    """Tokenizers that have used threads warn of each new process, unless it is said that they shall not use them."""
    name = "TOKENIZERS_PARALLELISM"
    is_set = name in os.environ
    os.environ.setdefault(name, "false")
    try:
        yield
    finally:
        if not is_set:
            os.environ.pop(name, None)


# ---- In a worker ----


class _Rows(Dataset):
    """Answers requests. It raises nothing, since torch would wrap it, but hands it over."""

    def __init__(self, data: Labelled):
        self.data = data

    def __getitem__(self, request: Request) -> Loaded | _Failure | None:
        if not request.missing:
            return None
        try:
            loaded = Loaded.read(self.data, request.missing, request.with_digests)
            self._share_memory(loaded)
        except Exception as error:
            return _Failure.of(error)
        return loaded

    def _share_memory(self, loaded: Loaded) -> None:
        """Moves images to where the other process finds them; left to the pipe, a failure would never be heard of."""
        try:
            loaded.share_memory()
        except RuntimeError as error:
            raise RuntimeError(
                f"There is no shared memory left for {len(loaded.rows)} images of {self.data.name!r} ({error}). "
                f"{ADVICE}"
            ) from error


@dataclass(frozen=True)
class _Failure:
    """What a set raised in a worker, and where."""

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        """The error as it is if it comes through the pipe, else its type and text."""
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)


def _begin(worker: int) -> None:
    """Ctrl-C is for the process that started the workers; it ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(answer: Any) -> Any:
    return answer
