"""How well a LLaVA's answers withstand attacks: what is attacked, what is kept, and how scores are summed up."""

import pytest
import torch
from support.llava import pixels_of
from support.paths import EMOJI
from support.vlm_golden import GOLDEN

from hf_pmgaft.cli import emoji_questions
from hf_pmgaft.cli.emoji_questions import GROUP, NAME
from hf_pmgaft.downstream.answer_attacks import EnsembleAttack, PgdAttack, likeliest
from hf_pmgaft.downstream.answer_evaluation import AnswerEvaluation
from hf_pmgaft.downstream.scores import ChoiceScore, SuccessScore, VqaScore, YesNoScore
from hf_pmgaft.downstream.tasks import AnswerTask
from hf_pmgaft.downstream.vlm import load_vlm
from hf_pmgaft.evaluation.verdicts import Verdicts

ROWS = [3, 5]


@pytest.fixture(scope="module")
def llava():
    return load_vlm(str(EMOJI / "llava"))


@pytest.fixture(scope="module")
def images(llava) -> torch.Tensor:
    rows = emoji_questions.load_rows("test")
    return pixels_of(llava, [rows[row] for row in ROWS])


@pytest.fixture
def evaluation(llava, images) -> AnswerEvaluation:
    return AnswerEvaluation(llava, ROWS, images, "own", Verdicts(None, {}), ["4/255", "2/255"], PgdAttack(num_steps=2))


def asked(llava, images, *answers: str) -> AnswerTask:
    """The names of the images: what the model writes about them, unless another answer is named right."""
    written = llava.write(images, [NAME] * len(images))
    right = [[answer or text] for answer, text in zip(answers, written, strict=True)]
    return AnswerTask("name", "vqa", [NAME] * len(images), right, VqaScore(right))


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
    attacked, attack = [], PgdAttack.run

    def recorded(self, asked, eps, lots, clean):
        lots = [list(lot) for lot in lots]
        attacked.append((eps, lots))
        return attack(self, asked, eps, lots, clean)

    monkeypatch.setattr(PgdAttack, "run", recorded)
    results = evaluation.run(asked(llava, images, "no such thing", ""))
    assert attacked[0] == ("2/255", [[1]]) and all(lots == [[1]] for _, lots in attacked)
    assert results["4/255"]["texts"][0] is None and results["4/255"]["worst_scores"][0] == 0


def test_texts_that_are_on_file_are_not_written_again(evaluation, llava, images, monkeypatch):
    task = asked(llava, images, "", "")
    first = evaluation.run(task)

    def write(*_):
        raise AssertionError("it wrote again")

    monkeypatch.setattr(llava, "write", write)
    assert evaluation.run(task) == first


def test_examples_are_the_first_images_clean_and_attacked(evaluation, llava, images):
    pair, texts = evaluation.examples(asked(llava, images, "", ""), count=1)
    assert pair.shape == (2, 1, 3, 40, 40) and torch.equal(pair[0], images[:1])
    assert 0 < (pair[1] - pair[0]).abs().max() <= 4.01 / 255  # the largest radius
    assert [len(of_view) for of_view in texts] == [1, 1]


@pytest.mark.parametrize("attack", [PgdAttack(num_steps=1), EnsembleAttack(num_steps=1)], ids=["pgd", "ensemble"])
def test_images_of_several_sizes_are_attacked_in_batches_of_their_own(llava, images, attack, monkeypatch):
    smaller = images[0][:, :32, :32]
    monkeypatch.setattr(llava, "answer_loss", _resized(llava.answer_loss))
    monkeypatch.setattr(llava, "write", _resized(llava.write))
    monkeypatch.setattr(llava.pixels, "check_size", lambda images: None)
    task = AnswerTask("name", "vqa", [NAME] * 3, [["zebra"]] * 3, YesNoScore(["yes"] * 3))
    mixed = [images[0], smaller, images[1]]
    results = AnswerEvaluation(llava, [3, 4, 5], mixed, "own", Verdicts(None, {}), ["2/255"], attack).run(task)
    assert all(isinstance(text, str) for text in results["2/255"]["texts"])


def _resized(function):
    """Takes images of any size, as models with a processor of their own do."""

    def resized(images, *args, **kwargs):
        return function(torch.nn.functional.interpolate(images, size=(40, 40)), *args, **kwargs)

    return resized


def test_several_questions_about_an_image_are_filed_apart(llava, images):
    task = AnswerTask(
        "names and groups",
        "vqa",
        [NAME, GROUP, NAME],
        [["zebra"]] * 3,
        SuccessScore("zebra"),
        image_places=[0, 0, 1],
        attacked=False,
    )
    results = AnswerEvaluation(llava, ROWS, images, "own", Verdicts(None, {}), ["2/255"]).run(task)
    expected = [
        llava.write(images[place : place + 1], [question])[0] for place, question in ((0, NAME), (0, GROUP), (1, NAME))
    ]
    assert list(results) == ["clean"] and results["clean"]["texts"] == expected


def test_the_likeliest_option_is_the_one_of_the_highest_summed_log_probability(llava, images):
    options = [["cat", "smiling face with a big grin"], ["a dog", "bus"]]
    chosen = likeliest(llava, images, [NAME, NAME], options)
    for image, of_question, choice in zip(images, options, chosen, strict=True):
        losses = [llava.answer_loss(image[None], [NAME], [option], reduction="sum").item() for option in of_question]
        assert choice == of_question[losses.index(min(losses))]


def test_the_golden_choice_is_by_the_sum_and_not_by_the_mean():
    case = GOLDEN["science_qa"]["likelihood"]
    logits, tokens = (
        torch.tensor(case["logits"], dtype=torch.float64),
        dict(zip("ABC", case["option_tokens"], strict=True)),
    )

    class Model:
        def answer_loss(self, images, questions, answers, reduction="mean"):
            assert reduction == "sum"
            of_option = {
                letter: logits[number, range(len(ids))].log_softmax(1)[range(len(ids)), ids]
                for number, (letter, ids) in enumerate(tokens.items())
            }
            losses = torch.stack([-of_option[letter].sum() for letter in answers])
            assert (-losses).tolist() == pytest.approx(case["sum_log_likelihood"], rel=1e-9)
            return losses

    chosen = likeliest(Model(), torch.zeros(1, 3, 2, 2), ["?"], [["A", "B", "C"]])
    assert chosen == ["ABC"[case["choice_by_sum"]]] != ["ABC"[case["choice_by_mean"]]]
    assert ChoiceScore([0], [3]).of(chosen[0], 0) == 1


def test_a_question_without_answers_is_refused():
    with pytest.raises(ValueError, match="no answers to 1 of 2 questions of the task 'name', such as question 1"):
        AnswerTask("name", "vqa", [NAME, NAME], [["cat"], []], VqaScore([["cat"], []]))
