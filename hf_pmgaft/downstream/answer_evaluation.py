"""How well a vision-language model's answers withstand attacks: texts and scores, clean and at each radius."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..attacks.ball import parse_radius
from ..evaluation.company import Company
from ..evaluation.lots import Lots, by_size
from ..evaluation.verdicts import Verdicts
from ..progress import progress_bar
from .answer_attacks import AnswerAttack, AskedImages, Filed, PgdAttack, text_of
from .tasks import AnswerTask
from .vlm import VisionLanguageModel

CLEAN = "clean"
WORST_OF_RADII = "per image the worst of the clean image and all radii so far, of adversarial images rounded to 8 bits"


class AnswerEvaluation:
    """Evaluates what a model writes about images through the tower that it has, clean and attacked at each radius.

    Texts that stand in `verdicts` already are not written again. Several processes take images from one queue.

    Args:
        model (`VisionLanguageModel`): With the tower to be evaluated.
        rows (`list[int]`): Numbers of the N images in their set, from which their noise follows.
        images (list of `torch.Tensor`): N, each `[3,H,W]` in [0,1]; those of one size make batches.
        name (`str`): Of the tower, under which its texts are filed.
        verdicts (`Verdicts`): Where they are filed.
        eps (`list[str]`): Radii.
        attack (`AnswerAttack`, *optional*): [`PgdAttack`] if not given.
        batch_size (`int`): Images at once, which changes no text.
        company (`Company`, *optional*): The processes that evaluate together.

    Example:
        >>> from hf_pmgaft.downstream.vlm import load_vlm
        >>> from hf_pmgaft.downstream.scores import VqaScore
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> from hf_pmgaft.evaluation.verdicts import Verdicts
        >>> llava, images = load_vlm(str(emoji_folder() / "llava")), torch.ones(1, 3, 40, 40)
        >>> task = AnswerTask("group", "vqa", ["which group is it?"], [["food"]], VqaScore([["food"]]))
        >>> attack = PgdAttack(num_steps=2)
        >>> list(AnswerEvaluation(llava, [0], images, "own", Verdicts(None, {}), ["4/255"], attack).run(task))
        ['clean', '4/255']
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        rows: Sequence[int],
        images: Sequence[torch.Tensor],
        name: str,
        verdicts: Verdicts,
        eps: Sequence[str],
        attack: AnswerAttack | None = None,
        *,
        batch_size: int = 32,
        company: Company | None = None,
    ):
        self.model = model
        self.rows = list(rows)
        self.images = images
        self.name = name
        self.verdicts = verdicts
        self.eps = sorted(eps, key=parse_radius)
        self.attack = PgdAttack() if attack is None else attack
        self.batch_size = batch_size
        self.company = Company() if company is None else company

    def run(self, task: AnswerTask) -> dict[str, Any]:
        """Writes and scores the texts of a task.

        An image whose score is low enough is done: no larger radius has anything to gain.

        Returns:
            `dict`: By `"clean"` and radius, the smallest first: the task's figure with its interval, the worst score
            so far of each question, and the texts; of F1 also what each question counts.
        """
        worst_scores: list[float] = []
        results = {}
        for eps in (None, *(self.eps if task.attacked else [])):
            texts = self._texts(task, eps, worst_scores)
            scores = [None if text is None else task.score.of(text, place) for place, text in enumerate(texts)]
            if eps is None:
                worst_scores = scores
            else:
                pairs = zip(worst_scores, scores, strict=True)
                worst_scores = [worst if score is None else min(worst, score) for worst, score in pairs]

            results[CLEAN if eps is None else eps] = self._summed(task, worst_scores, texts)
        return results

    def _summed(self, task: AnswerTask, scores: list[float], texts: list[str | None]) -> dict[str, Any]:
        result = {
            task.score.figure: task.score.summed(scores),
            "interval_95": task.score.interval(scores),
            "worst_scores": scores,
            "texts": texts,
        }
        counts = task.score.counts(scores)
        return result if counts is None else {**result, "counts": counts}

    def filed(self, task: AnswerTask, eps: str | None) -> dict[int, Filed]:
        """What is filed of a task, by place; of the ensemble also which stages were tried."""
        by_row = self.verdicts.of(self.name, file_key(task, eps))
        ids = self._ids(task)
        return {place: by_row[row] for place, row in enumerate(ids) if row in by_row}

    def examples(self, task: AnswerTask, count: int = 4) -> tuple[torch.Tensor, list[list[str]]]:
        """The first images clean and attacked at the largest radius, `[2,N,3,H,W]`, and what is written about them."""
        asked = self._asked(task)
        size = asked.image(0).shape
        places = [place for place in range(len(task.questions)) if asked.image(place).shape == size][:count]
        clean = asked.stack(places)
        texts = dict(zip(places, asked.write(clean, places), strict=True))

        adversarial = clean.clone()
        for done, images, _ in self.attack.run(asked, self.eps[-1], [places], texts):
            for place, image in zip(done, images, strict=True):
                adversarial[places.index(place)] = image
        pair = torch.stack([clean, adversarial])
        return pair.cpu(), [list(texts.values()), asked.write(adversarial, places)]

    # ---- Writing ----

    def _texts(self, task: AnswerTask, eps: str | None, worst_scores: Sequence[float]) -> list[str | None]:
        """Texts by place, clean or at a radius, where images that are done have none."""
        places = range(len(task.questions))
        if eps is not None:
            places = [place for place in places if not task.score.is_done(worst_scores[place])]

        key = file_key(task, eps)
        on_file = self.filed(task, eps)
        self._write(task, eps, key, [place for place in places if place not in on_file])
        self.company.meet()
        self.verdicts.exchange(self.name, key)

        filed = self.filed(task, eps)
        missing = [place for place in places if place not in filed]
        if missing:
            raise RuntimeError(
                f"All processes are done with {key!r} of {self.name!r}, but {len(missing)} questions have no text, "
                f"such as the one at place {missing[0]}. Run it again; with a verdict file it goes on from there."
            )
        return [text_of(filed[place]) if place in filed else None for place in range(len(task.questions))]

    def _write(self, task: AnswerTask, eps: str | None, key: str, missing: Sequence[int]) -> None:
        """Files the texts that are missing; with several processes, those that come to this one."""
        asked = self._asked(task)
        clean = {place: text_of(filed) for place, filed in self.filed(task, None).items()}
        ids = self._ids(task)
        with progress_bar(f"{self.name}: {key}", len(missing), shown=bool(missing)) as bar:
            for group in by_size(missing, lambda place: tuple(asked.image(place).shape)):
                lots = Lots(f"{self.name}: {key}, {tuple(asked.image(group[0]).shape)}", group, self.batch_size)
                for places, filed in self._judged(asked, eps, lots, clean):
                    self.verdicts.add(self.name, key, [ids[place] for place in places], filed)
                    bar.update(len(places))

    def _judged(
        self, asked: AskedImages, eps: str | None, lots: Lots, clean: Mapping[int, str]
    ) -> Iterator[tuple[list[int], list[Filed]]]:
        if eps is None:
            for lot in lots:
                yield list(lot), asked.write(asked.stack(lot), lot)
            return
        for places, _, filed in self.attack.run(asked, eps, lots, clean):
            yield places, filed

    def _asked(self, task: AnswerTask) -> AskedImages:
        return AskedImages(self.model, task, self.images, self.rows, self.batch_size)

    def _ids(self, task: AnswerTask) -> list[int]:
        """How questions are filed: by the row of their image, or by their place if an image has several."""
        if task.image_places == list(range(len(self.rows))):
            return self.rows
        return list(range(len(task.questions)))


def file_key(task: AnswerTask, eps: str | None) -> str:
    """How texts of a task are filed, clean or at a radius."""
    return f"{task.name}, {CLEAN if eps is None else f'linf {eps}'}"
