"""Walks of APGD on what answers cost a vision-language model, in full batches: who leaves makes room for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from ..attacks.apgd_steps import DenseSteps
from ..attacks.losses import gradient_of
from ..attacks.usage import Usage
from ..attacks.walk import State
from ..modes import frozen
from .answer_pgd import as_8_bit_files
from .ensemble import Course, Stage
from .tasks import AnswerTask
from .vlm import VisionLanguageModel

Place = tuple[Course, Stage]  # a walk: of which image, and which one
Write = Callable[[torch.Tensor, Sequence[int]], list[str]]


class AnswerWalks:
    """Runs the stages of images, one after the other, many images side by side.

    A walk begins at the clean image, or at the worst so far, without a random start; its first step is as long as the
    radius. What is judged of it is its point of the highest loss, as an 8-bit file holds it. Images are all of one
    size.

    Args:
        model (`VisionLanguageModel`): In float32, which all stages run in.
        task (`AnswerTask`): Whose questions are asked.
        write (`Callable`): From images `[B,3,H,W]` and the places of their questions to texts.
        eps (`str`), radius (`float`): The ball in L-inf, as it is written and as a number.
        num_steps (`int`): Steps of a walk.
        size (`int`): Images of a batch.

    Attributes:
        usage (`Usage`): How full the batches of passes were.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        task: AnswerTask,
        write: Write,
        *,
        eps: str,
        radius: float,
        num_steps: int,
        size: int,
    ):
        self.model = model
        self.task = task
        self.write = write
        self.eps = eps
        self.steps = DenseSteps(radius, "linf", num_steps, first_step=1.0)
        self.size = size
        self.usage = Usage(size)

        self._state: State = {}
        self._walks: list[Place] = []  # in the rows of the state
        self._waiting: list[Course] = []  # images that have another stage to go through, and no place
        self._ended: list[tuple[Place, torch.Tensor]] = []  # walks and their best points, which are not looked at yet
        self._done: list[Course] = []
        self._more_come = True

    @torch.no_grad()
    def run(self, lots: Iterable[Sequence[Course]]) -> Iterator[list[Course]]:
        """Takes lots of images as places become free, and gives those that are done.

        Raises:
            FloatingPointError: if the loss of an answer is NaN or infinite.
            RuntimeError: if an image leaves its ball.
        """
        lots = iter(lots)
        with frozen(self.model.model):
            while True:
                self._fill(lots)
                if self._ended:
                    self._look()
                elif self._walks:
                    self._step()
                elif not self._done:
                    return
                if self._done:
                    done, self._done = self._done, []
                    yield done

    # ---- Who enters ----

    def _fill(self, lots: Iterator[Sequence[Course]]) -> None:
        """Gives free places to images that go on, then to those that come."""
        entering: list[Place] = []
        while len(self._walks) + len(entering) < self.size and self._is_waiting(lots):
            course = self._waiting.pop(0)
            stage = course.next_stage()
            if stage is None:
                self._done.append(course)
            else:
                entering.append((course, stage))
        if entering:
            self._seat(entering)

    def _is_waiting(self, lots: Iterator[Sequence[Course]]) -> bool:
        """Whether an image waits for a place, having asked for more if none does."""
        while not self._waiting and self._more_come:
            lot = next(lots, None)
            self._more_come = lot is not None
            self._waiting += lot or []
        return bool(self._waiting)

    def _seat(self, entering: list[Place]) -> None:
        images = torch.stack([course.image for course, _ in entering])
        points = torch.stack([course.start_of(stage) for course, stage in entering])
        new = self.steps.begin_at(images, points)
        self._state = {key: torch.cat([self._state[key], rows]) for key, rows in new.items()} if self._state else new
        self._walks += entering

    # ---- A pass ----

    def _step(self) -> None:
        """One step of all walks. Those that have come to their last point end, and leave."""
        self.usage.count(len(self._walks), waiting=self._more_come or bool(self._waiting))
        state = self._state
        points = state["points"].detach().requires_grad_()
        with torch.enable_grad():
            losses = self._losses(points)
            total = losses.sum()
        if not torch.isfinite(losses).all():
            places = [course.place for course, _ in self._walks]
            raise FloatingPointError(
                f"The loss of an answer is NaN or infinite on images among {places}, so that no attack finds its way. "
                "Check the weights of the model and of the tower."
            )

        is_over = (state["steps"] == self.steps.num_steps).tolist()
        self.steps.advance(state, losses.detach(), gradient_of(total, points))
        if any(is_over):
            self._leave([row for row, over in enumerate(is_over) if over])

    def _losses(self, points: torch.Tensor) -> torch.Tensor:
        """What each walk wants high: the loss of its answer, or minus that of its target."""
        signs = [-1.0 if stage.is_targeted else 1.0 for _, stage in self._walks]
        losses = self.model.answer_loss(
            points,
            [self.task.questions[course.place] for course, _ in self._walks],
            [course.answer_of(stage) for course, stage in self._walks],
            end_token=True,
        )
        return losses * torch.tensor(signs, device=points.device)

    def _leave(self, rows: list[int]) -> None:
        points = self._state["best_points"]
        self._ended += [(self._walks[row], points[row].clone()) for row in rows]
        kept = [row for row in range(len(self._walks)) if row not in set(rows)]
        self._walks = [self._walks[row] for row in kept]
        self._state = {key: values[kept] for key, values in self._state.items()} if kept else {}

    # ---- What a walk came to ----

    def _look(self) -> None:
        """Reads what the model writes about the points of walks that have ended."""
        looked_at, self._ended = self._ended, []
        courses = [course for (course, _), _ in looked_at]
        images = as_8_bit_files(
            torch.stack([course.image for course in courses]), torch.stack([point for _, point in looked_at]), self.eps
        )
        texts = self.write(images, [course.place for course in courses])
        for ((course, stage), _), image, text in zip(looked_at, images, texts, strict=True):
            course.note(stage, text, self.task.score.of(text, course.place), image)
        self._waiting = courses + self._waiting
