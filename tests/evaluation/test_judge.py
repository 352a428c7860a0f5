"""The judge: batches, one checked attack and its bars; and a task that the package does not have."""

import re
import sys

import pytest
import torch

from hf_pmgaft import AttackSpec, progress
from hf_pmgaft.evaluation import image_progress, lots
from hf_pmgaft.evaluation import judge as judging
from hf_pmgaft.evaluation.judge import Judge, check_finite
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.evaluation.verdicts import PIXELS, Verdicts
from hf_pmgaft.progress import progress_bar
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names


class Masks:
    """Grey images with a bright left half, whose labels are a class for each pixel."""

    name = "masks"

    def __getitem__(self, row: int) -> dict:
        image = torch.full((3, 4, 4), 0.4)
        image[..., :2] += 0.02 * (row + 1)
        labels = torch.zeros(4, 4, dtype=torch.long)
        labels[:, :2] = 1
        return {"images": image, "labels": labels, "sample_id": row}


class OtherMasks(Masks):
    """The same images, one of which has another label at one pixel."""

    def __getitem__(self, row: int) -> dict:
        example = super().__getitem__(row)
        example["labels"][0, 0] = 1 if row != 1 else 0
        return example


def make_judge(verdicts: Verdicts | None = None, **options) -> Judge:
    verdicts = Verdicts(None, {}) if verdicts is None else verdicts
    defaults = {"any_iterate": False, "eight_bit": False, "batch_size": 3, "seed": 0, "progress": False}
    return Judge(verdicts, **{**defaults, **options})


# ---- Batches ----


def test_batches_are_of_rows_without_a_verdict():
    verdicts = Verdicts(None, {})
    verdicts.add("masks", "clean", [1, 4], [1, 0])
    judge, reader, seen = make_judge(verdicts), Reader(Masks()), []
    for batch in judge.batches(reader, "clean", range(7), range(7), share_right=bool):
        seen.append(batch.rows)
        judge.note(reader, "clean", batch.rows, [1] * len(batch.rows))
    assert seen == [[0, 2, 3], [5, 6]]
    assert sorted(verdicts.of("masks", "clean")) == list(range(7))


def test_verdicts_on_other_images_are_refused():
    judge, reader = make_judge(), Reader(Masks())
    for batch in judge.batches(reader, PIXELS, [0, 1], [0, 1], share_right=bool, with_digests=True):
        judge.note(reader, PIXELS, batch.rows, batch.digests)
    judge.check_images(reader, [0, 1])
    with pytest.raises(ValueError, match="other images or labels of 'masks': row 1 differs"):
        judge.check_images(Reader(OtherMasks()), [0, 1])


def test_rows_that_no_process_has_judged_are_seen_when_all_are_done(monkeypatch):
    judge, reader = make_judge(), Reader(Masks())
    tickets = iter([0, 3, 99])  # another process took two lots and never judged them
    monkeypatch.setattr(judging, "process_share", lambda: (0, 2))
    monkeypatch.setattr(lots, "process_share", lambda: (0, 2))
    monkeypatch.setattr(lots, "take_ticket", lambda queue: next(tickets))
    seen = []
    with pytest.raises(RuntimeError, match="All processes are done with 'clean' of 'masks', but .* have no verdict"):
        for batch in judge.batches(reader, "clean", range(12), range(12), share_right=bool):
            seen += batch.rows
            judge.note(reader, "clean", batch.rows, [1] * len(batch.rows))
    assert 0 < len(seen) < 12


def test_nothing_waits_where_all_images_have_a_place(fitted, data):
    model, processor = fitted
    classifier = ZeroShotClassifier.from_model(
        model, processor, encode_class_names(model, processor, data.class_names, data.prompt_templates)
    )
    for size, waits in ((64, False), (4, True)):
        judge, reader = make_judge(any_iterate=True, batch_size=size), Reader(data)
        spec = AttackSpec.parse("pgd,eps=8/255,num_steps=5")
        rows = range(len(data))
        walk = spec.walk(len(data.class_names))
        for ended in judge.walks(reader, "pgd", rows, rows, bool, spec=spec, walk=walk, classifier=classifier):
            judge.note(reader, "pgd", ended.rows, (~ended.fooled).int().tolist())
        usage = judge.usage[data.name, "pgd"]
        assert usage.passes > 0 and (usage.waiting_passes > 0) == waits and usage.waiting_fill == 1


# ---- Attacks ----


def pixel_logits(images: torch.Tensor) -> torch.Tensor:
    """Logits of two classes for each pixel, `[B,2,H,W]`: bright ones are of class 1."""
    mean = images.mean(1)
    return torch.stack([0.43 - mean, mean - 0.43], dim=1)


def test_what_leaves_its_ball_is_an_error(monkeypatch):
    monkeypatch.setattr(AttackSpec, "run", lambda spec, classifier, images, *rest, **options: images + 0.1)
    judge = make_judge()
    batch = next(judge.batches(Reader(Masks()), "pgd", [5, 7], [5, 7], share_right=bool))
    with pytest.raises(
        RuntimeError, match=r"FGSM ce linf 8/255 left its ball or \[0,1\] on the images of rows \[5, 7\]"
    ):
        judge.attack(AttackSpec.parse("fgsm,eps=8/255"), pixel_logits, batch)


def test_logits_that_are_not_finite_are_no_verdict():
    check_finite(torch.zeros(2, 3), "masks", [4, 9])
    with pytest.raises(ValueError, match="NaN or infinite on images among the rows 4 to 9 of 'masks'"):
        check_finite(torch.tensor([[0.0, torch.inf]]), "masks", [4, 9])


def test_a_task_of_ones_own_is_judged_resumed_and_attacked(tmp_path):
    """Segmentation in a few lines: the verdict of an image is how many of its pixels are right."""

    def all_right(pixels):
        return pixels == 16

    def judge_segmentation() -> tuple[Verdicts, int]:
        verdicts = Verdicts(tmp_path / "verdicts.jsonl", {"seed": 0})
        judge, reader, batches = make_judge(verdicts), Reader(Masks()), 0
        rows = range(5)
        judge.check_images(reader, rows)

        def note(key, batch, images):
            right = pixel_logits(images).argmax(1) == batch.labels
            judge.note(reader, key, batch.rows, right.flatten(1).sum(1).tolist())

        for batch in judge.batches(reader, "clean", rows, rows, share_right=all_right, with_digests=True):
            judge.note(reader, PIXELS, batch.rows, batch.digests)
            note("clean", batch, batch.images)
            batches += 1
        noise = AttackSpec.of({"attack": "corruption", "kind": "gaussian_noise", "severity": 1})
        for batch in judge.batches(reader, noise.name, rows, rows, share_right=all_right):
            note(noise.name, batch, judge.attack(noise, pixel_logits, batch))
            batches += 1
        verdicts.close()
        return verdicts, batches

    first, batches = judge_segmentation()
    again, none = judge_segmentation()

    clean, noisy = (first.of("masks", key) for key in ("clean", "gaussian_noise 1"))
    assert clean == {0: 8, 1: 16, 2: 16, 3: 16, 4: 16} != noisy and sum(noisy.values()) < sum(clean.values())
    assert (batches, none) == (4, 0)
    assert all(again.of("masks", key) == first.of("masks", key) for key in ("clean", PIXELS, "gaussian_noise 1"))


# ---- Bars ----


@pytest.fixture
def terminal(capsys, monkeypatch):
    """Makes standard error a terminal."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True)


def drawn(capsys) -> list[str]:
    return [text for text in re.split("[\r\n]", capsys.readouterr().err) if text.strip()]


def judge_six_images(**options) -> None:
    """Two batches of three, every pass of which is shown; all of them are fooled."""
    judge, reader = make_judge(**{"progress": True, **options}), Reader(Masks())
    for batch in judge.batches(reader, "pgd", range(6), range(6), share_right=bool):
        watched = batch.progress.watched(pixel_logits)
        for _ in range(10):
            watched(batch.images)
        judge.note(reader, "pgd", batch.rows, [0] * len(batch.rows))


def test_a_bar_in_a_terminal_is_drawn_again_and_again(terminal, capsys, monkeypatch):
    monkeypatch.setattr(image_progress, "PASSES_INTERVAL", -1.0)
    judge_six_images()
    lines = drawn(capsys)
    assert len(lines) > 20 and lines[0].startswith("masks: pgd:   0%") and "6/6" in lines[-1]
    assert any("at most 50.0% right, pass 10 with 3 images" in line for line in lines)


def test_a_bar_in_a_log_file_has_a_first_and_a_last_line(capsys, monkeypatch):
    monkeypatch.setattr(image_progress, "PASSES_INTERVAL", -1.0)
    judge_six_images()
    first, last = drawn(capsys)
    assert "masks: pgd:   0%" in first and "6/6" in last and "at most 0.0% right" in last


def test_a_bar_in_a_log_file_has_a_line_for_each_interval(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.0)
    monkeypatch.setattr(image_progress, "PASSES_INTERVAL", -1.0)
    judge_six_images()
    lines = drawn(capsys)
    assert any("3/6" in line for line in lines) and any("pass 7 with 3 images" in line for line in lines)


def test_a_bar_goes_on_from_what_is_done(terminal, capsys):
    with progress_bar("food: clean", total=10, done=2) as bar:
        bar.update(8)
    first, *_, last = drawn(capsys)
    assert first.startswith("food: clean:  20%") and "10/10" in last


def test_a_bar_that_is_not_wanted_is_not_drawn(terminal, capsys):
    judge_six_images(progress=False)
    assert drawn(capsys) == []
