"""The ensemble attack: who is attacked by what, who leaves when, and that no run of it is stronger than it is."""

import json

import pytest
import torch
from support.llava import pixels_of
from support.paths import EMOJI
from support.vlm_golden import GOLDEN

from hf_pmgaft.attacks.apgd_steps import DenseSteps
from hf_pmgaft.cli import emoji_questions
from hf_pmgaft.cli.emoji_questions import DESCRIBE, NAME
from hf_pmgaft.downstream.answer_attacks import AskedImages, EnsembleAttack
from hf_pmgaft.downstream.answer_pgd import as_8_bit_files
from hf_pmgaft.downstream.answer_walks import AnswerWalks
from hf_pmgaft.downstream.ensemble import LAST, Course, Stage, stages
from hf_pmgaft.downstream.scores import CiderScore, SuccessScore, VqaScore
from hf_pmgaft.downstream.tasks import AnswerTask
from hf_pmgaft.downstream.vlm import load_vlm

EPS = "4/255"
ROWS = [3, 5, 11, 40, 77]
IMAGE = torch.zeros(3, 2, 2)


def walked(tried: list[Stage], numbers: list[int], scores: list[float], is_done) -> tuple[Course, str]:
    """A course over given scores, of which stage k gets `scores[numbers[k]]`, and the answer its last run follows."""
    course = Course(0, IMAGE, tried, is_done, text="clean", score=scores[0])
    followed = course.answer_of(LAST)
    while (stage := course.next_stage()) is not None:
        number = numbers[tried.index(stage)]
        if stage is LAST:
            followed = course.answer_of(stage)
            assert course.start_of(stage) is course.worst_image
        else:
            assert course.start_of(stage) is IMAGE
        course.note(stage, str(number), scores[number], IMAGE + number)
    return course, followed


@pytest.mark.parametrize("place", range(6))
def test_captions_go_through_the_stages_of_the_authors_table(place):
    table = GOLDEN["caption_ensemble"]
    scores, expected = table["cider_x100_if_run"][place], table["images"][place]
    tried = [*(Stage(f"reference {k}", str(k)) for k in range(5)), LAST]
    course, followed = walked(tried, [1, 2, 3, 4, 5, 6], scores, lambda score: score < table["threshold"])
    check(course, tried, expected, "cider")
    if 6 in expected["attacks_run"]:
        assert followed == str(expected["reference_for_the_last"])


@pytest.mark.parametrize("place", range(5))
def test_questions_go_through_the_stages_of_the_authors_table(place):
    table = GOLDEN["vqa_ensemble"]
    scores, expected = table["accuracy_if_run"][place], table["questions"][place]
    answers = [[str(k)] * 2 for k in range(table["distinct_answers"][place])]
    task = AnswerTask("vqa", "vqa", ["?"], [sum(answers, [])], VqaScore([["0"]]))
    tried = stages(task, 0)
    assert [stage.answer for stage in tried[-2:]] == ["maybe", "Word"] and all(
        stage.is_targeted for stage in tried[-2:]
    )
    numbers = [*range(1, len(answers) + 1), 6, 7, 8]
    course, followed = walked(tried, numbers, scores, lambda score: score <= 0)
    ran = [0, *(numbers[tried.index(stage)] for stage in tried if stage.name in course.tried)]
    assert ran == expected["attacks_run"] and course.score == expected["best_accuracy"]
    assert course.text == ("clean" if expected["best_attack"] == 0 else str(expected["best_attack"]))
    if 6 in ran:
        assert followed == str(expected["answer_for_the_last"])


def check(course: Course, tried: list[Stage], expected: dict, kind: str) -> None:
    names = ["clean", *(stage.name for stage in tried)]
    assert [names.index(name) for name in course.tried] == expected["attacks_run"]
    assert course.score == expected[f"best_{kind}"]
    assert course.worst_stage == names[expected["best_attack"]]
    assert torch.equal(course.worst_image, IMAGE + expected["best_attack"])


def test_captions_have_five_references_and_answers_the_five_most_frequent():
    score = VqaScore([["0"]])
    of_captions = stages(AnswerTask("caption", "caption", ["?"], [list("abcdefg")], score), 0)
    assert [stage.answer for stage in of_captions] == [*"abcde", None]
    of_answers = stages(AnswerTask("vqa", "vqa", ["?"], [list("bcbddd")], score), 0)
    assert [stage.answer for stage in of_answers] == ["d", "b", "c", None, "maybe", "Word"]
    (of_target,) = stages(AnswerTask("target", "target", ["?"], [["cat"]], score), 0)
    assert of_target.answer == "cat" and of_target.is_targeted


def test_words_that_images_are_pulled_to_are_no_answers_to_go_on_with():
    tried = [Stage("answer 0", "cat"), Stage("towards maybe", "maybe", is_targeted=True), LAST]
    course = Course(0, IMAGE, tried, lambda score: score <= 0, text="clean", score=0.9)
    course.note(course.next_stage(), "a dog", 0.8, IMAGE + 1)
    course.note(course.next_stage(), "maybe", 0.5, IMAGE + 2)
    assert course.answer_of(LAST) == "cat" and torch.equal(course.start_of(LAST), IMAGE + 2)


class Hill:
    """A model whose loss is highest where images are 1.3 grey levels brighter, past which a step of 4 goes."""

    def __init__(self, image: torch.Tensor):
        self.model = torch.nn.Linear(1, 1)
        self.top = image.mean() + 1.3 / 255
        self.visited: list[torch.Tensor] = []

    def answer_loss(self, points, questions, answers, end_token):
        self.visited.append(points.detach()[0].clone())
        return 1 - (points.mean(dim=(1, 2, 3)) - self.top).abs()


class Lower(SuccessScore):
    """Every text scores lower than the one before, so that all images are kept."""

    score = 1.0

    def of(self, text, place):
        self.score /= 2
        return self.score


def test_the_best_point_of_a_run_is_judged_and_the_last_run_begins_at_the_worst_image():
    image = torch.full((3, 4, 4), 100 / 255)
    model = Hill(image)
    task = AnswerTask("caption", "caption", ["?"], [["a cat"]], Lower("cat"))
    walks = AnswerWalks(
        model, task, lambda images, places: ["x"] * len(images), eps=EPS, radius=4 / 255, num_steps=3, size=1
    )
    course = Course(0, image, stages(task, 0), task.score.is_done, text="clean", score=1.0)
    kept, note = [], course.note
    course.note = lambda stage, text, score, point: kept.append(point) or note(stage, text, score, point)
    assert list(walks.run([[course]])) == [[course]]

    first, last = model.visited[:4], model.visited[4:]  # the start and three steps of either run
    assert len(last) == 4 and torch.equal(first[0], image)
    losses = [1 - (point.mean() - model.top).abs() for point in first]
    best = first[losses.index(max(losses))]
    assert losses.index(max(losses)) not in (0, 3) and torch.equal(kept[0], as_8_bit_files(image, best, EPS))
    assert torch.equal(last[0], kept[0]) and not torch.equal(last[0], image)


# ---- On the embedded LLaVA ----


@pytest.fixture(scope="module")
def llava():
    return load_vlm(str(EMOJI / "llava"))


@pytest.fixture(scope="module")
def images(llava) -> torch.Tensor:
    rows = emoji_questions.load_rows("test")
    return pixels_of(llava, [rows[row] for row in ROWS])


@pytest.fixture(scope="module")
def captions(llava, images) -> AnswerTask:
    """Descriptions: what the model writes, and other words."""
    written = llava.write(images, [DESCRIBE] * len(images))
    references = [[text, "a thing on a white ground"] for text in written]
    score = CiderScore(references, leaves_below=0.5)
    return AnswerTask("caption", "caption", [DESCRIBE] * len(images), references, score)


def run(llava, images, task, attack, size: int = 3):
    asked = AskedImages(llava, task, images, ROWS, batch_size=size)
    places = list(range(len(images)))
    clean = dict(zip(places, asked.write(asked.stack(places), places), strict=True))
    done = {}
    for of_batch, adversarial, filed in attack.run(asked, EPS, [places[:2], places[2:]], clean):
        done |= dict(zip(of_batch, zip(adversarial, filed, strict=True), strict=True))
    assert sorted(done) == places
    return done


def test_the_ensemble_is_at_least_as_strong_as_each_of_its_runs_on_every_image(llava, images, captions):
    attack = EnsembleAttack(num_steps=3)
    done = run(llava, images, captions, attack)
    scores = {place: captions.score.of(filed["text"], place) for place, (_, filed) in done.items()}
    assert any(score < 0.5 for score in scores.values())  # some leave early, and some are attacked to the end
    assert any(filed["tried"][-1] == LAST.name for _, filed in done.values())
    for place, score in scores.items():
        if score < 0.5:  # nothing was tried after the stage that brought it there
            assert done[place][1]["by"] == done[place][1]["tried"][-1]

    for number in range(2):
        alone = AnswerTask(
            "alone",
            "choice",
            captions.questions,
            [[of_image[number]] for of_image in captions.answers],
            captions.score,
        )
        for place, (_, filed) in run(llava, images, alone, attack).items():
            assert scores[place] <= captions.score.of(filed["text"], place) or captions.score.is_done(scores[place])


def test_what_is_kept_is_what_the_model_writes_about_an_8_bit_image_inside_the_ball(llava, images, captions):
    for place, (image, filed) in run(llava, images, captions, EnsembleAttack(num_steps=1)).items():
        assert (image - images[place]).abs().max() <= 4.001 / 255 and torch.allclose(
            image * 255, (image * 255).round()
        )
        assert llava.write(image[None], [DESCRIBE]) == [filed["text"]]


def test_figures_do_not_depend_on_what_else_is_in_the_batch(llava, images, captions):
    attack = EnsembleAttack(num_steps=2)
    texts = [
        [filed for _, (_, filed) in sorted(run(llava, images, captions, attack, size).items())] for size in (2, 8)
    ]
    assert texts[0] == texts[1]


def test_batches_are_full_while_images_wait(llava, images, captions):
    asked = AskedImages(llava, captions, images, ROWS, 2)
    clean = asked.write(images, range(5))
    courses = [
        Course(place, images[place], stages(captions, place), captions.score.is_done, clean[place], score=9.0)
        for place in range(5)
    ]
    walks = AnswerWalks(llava, captions, asked.write, eps=EPS, radius=4 / 255, num_steps=2, size=2)
    assert sorted(course.place for done in walks.run([[course] for course in courses]) for course in done) == [
        *range(5)
    ]
    assert walks.usage.waiting_fill == 1.0 and walks.usage.passes > 10


def test_a_run_is_apgd_from_a_step_of_one_radius_on_answers_with_their_end(llava, images, captions, monkeypatch):
    walks = AnswerWalks(llava, captions, None, eps=EPS, radius=4 / 255, num_steps=7, size=2)
    assert walks.steps == DenseSteps(4 / 255, "linf", 7, first_step=1.0)

    counted, loss = [], llava.answer_loss
    monkeypatch.setattr(llava, "answer_loss", lambda *args, **how: counted.append(how) or loss(*args, **how))
    run(llava, images, captions, EnsembleAttack(num_steps=1))
    assert counted and all(how == {"end_token": True} for how in counted)


def test_a_targeted_run_lowers_the_loss_of_its_target(llava, images, monkeypatch):
    passes, loss = [], llava.answer_loss
    monkeypatch.setattr(llava, "answer_loss", lambda *args, **how: passes.append(len(args[0])) or loss(*args, **how))
    task = AnswerTask("target", "target", [NAME] * 5, [["warning"]] * 5, Lower("warning"))
    done = run(llava, images, task, EnsembleAttack(num_steps=1, target_steps=6))
    assert passes == [3] * 7 + [2] * 7  # the start and six steps, in full batches
    attacked = torch.stack([done[place][0] for place in range(5)])
    before, after = (llava.answer_loss(points, [NAME] * 5, ["warning"] * 5) for points in (images, attacked))
    assert (after < before).all()
    assert all(filed["tried"] == ["clean", "towards the target"] for _, filed in done.values())


def test_a_loss_that_is_not_finite_ends_the_attack(llava, images, captions, monkeypatch):
    broken = llava.answer_loss
    monkeypatch.setattr(llava, "answer_loss", lambda *args, **kwargs: broken(*args, **kwargs) * float("nan"))
    with pytest.raises(FloatingPointError, match="loss of an answer is NaN"):
        run(llava, images, captions, EnsembleAttack(num_steps=1))


def test_what_is_filed_can_be_written_to_a_file(llava, images, captions):
    filed = [filed for _, filed in run(llava, images, captions, EnsembleAttack(num_steps=1)).values()]
    assert json.loads(json.dumps(filed)) == filed
