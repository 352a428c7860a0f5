"""How well a LLaVA's answers withstand attacks: what is attacked, what is kept, and how scores are summed up."""

import pytest
import torch
from support.llava import pixels_of
from support.paths import EMOJI

from hf_pmgaft.cli import emoji_questions
from hf_pmgaft.cli.emoji_questions import NAME
from hf_pmgaft.downstream.answers import vqa_accuracy
from hf_pmgaft.downstream.llava import load_llava
from hf_pmgaft.downstream.llava_evaluation import AnswerEvaluation, AnswerTask
from hf_pmgaft.evaluation.verdicts import Verdicts

ROWS = [3, 5]


@pytest.fixture(scope="module")
def llava():
    return load_llava(str(EMOJI / "llava"))


@pytest.fixture(scope="module")
def images(llava) -> torch.Tensor:
    rows = emoji_questions.load_rows("test")
    return pixels_of(llava, [rows[row] for row in ROWS])


@pytest.fixture
def evaluation(llava, images) -> AnswerEvaluation:
    return AnswerEvaluation(llava, ROWS, images, "own", Verdicts(None, {}), ["4/255", "2/255"], num_steps=2)


def asked(llava, images, *answers: str) -> AnswerTask:
    """The names of the images: what the model writes about them, unless another answer is named right."""
    written = llava.write(images, [NAME] * len(images))
    right = [[answer or text] for answer, text in zip(answers, written, strict=True)]
    return AnswerTask("name", "vqa_accuracy", [NAME] * len(images), right, vqa_accuracy)


def test_figures_are_means_of_the_worst_so_far_from_the_smallest_radius_on(evaluation, llava, images):
    results = evaluation.run(asked(llava, images, "", ""))
    assert list(results) == ["clean", "2/255", "4/255"]
    assert results["clean"]["vqa_accuracy"] == 1.0 and results["clean"]["worst_scores"] == [1.0, 1.0]
    figures = [result["vqa_accuracy"] for result in results.values()]
    assert figures == sorted(figures, reverse=True)
    for result in results.values():
        low, high = result["interval_95"]
        assert result["vqa_accuracy"] == sum(result["worst_scores"]) / 2 and low <= result["vqa_accuracy"] <= high


def test_an_image_that_is_wrong_already_is_not_attacked(evaluation, llava, images, monkeypatch):
    attacked, attack = [], evaluation.attack

    def recorded(task, eps, places):
        attacked.append((eps, list(places)))
        return attack(task, eps, places)

    monkeypatch.setattr(evaluation, "attack", recorded)
    results = evaluation.run(asked(llava, images, "no such thing", ""))
    assert attacked[0] == ("2/255", [1]) and all(places == [1] for _, places in attacked)
    assert results["4/255"]["texts"][0] is None and results["4/255"]["worst_scores"][0] == 0


def test_texts_that_are_on_file_are_not_written_again(evaluation, llava, images, monkeypatch):
    task = asked(llava, images, "", "")
    first = evaluation.run(task)

    def write(*_):
        raise AssertionError("it wrote again")

    monkeypatch.setattr(llava, "write", write)
    assert evaluation.run(task) == first


def test_success_of_a_targeted_attack_is_what_is_missing_to_one():
    task = AnswerTask("target 'cat'", "success", [NAME], [["cat"]], lambda text, answers: 1.0, targeted=True)
    assert task.reported(0.75) == 0.25
    task.targeted = False
    assert task.reported(0.75) == 0.75


def test_examples_are_the_first_images_clean_and_attacked(evaluation, llava, images):
    pair, texts = evaluation.examples(asked(llava, images, "", ""), count=1)
    assert pair.shape == (2, 1, 3, 40, 40) and torch.equal(pair[0], images[:1])
    assert 0 < (pair[1] - pair[0]).abs().max() <= 2.01 / 255  # the last radius that was named
    assert [len(of_view) for of_view in texts] == [1, 1]
