"""Retrieval behind a defence: ranks by draws, three attackers, and the defences that need classes refused."""

import pytest
import torch
import torch.nn.functional as F
from support.emoji import PGD, make_data, make_emoji

from hf_pmgaft import AttackSpec, RobustnessReport, evaluate_robustness
from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.attacks.expected import attack_expected, attack_to_the_end
from hf_pmgaft.defences import ATTACKERS, DEFENCES, PixelDefence
from hf_pmgaft.defences.spec import DefenceSpec
from hf_pmgaft.evaluation.evaluate import _Classifiers
from hf_pmgaft.evaluation.plan import Plan
from hf_pmgaft.evaluation.ranks import own_ranks, text_to_image_ranks
from hf_pmgaft.noise import draw_seeds
from hf_pmgaft.zero_shot.readout_spec import ReadoutSpec

SHORT = {**PGD, "num_steps": 2}
NOISE = {"defence": "random_noise,eps=30/255", "draws": 3, "eot": 2}


class Nothing(PixelDefence):
    """Leaves images as they are."""

    title = "nothing"
    needs_classes = False

    def purify(self, images, seeds):
        return images


@pytest.fixture(scope="module")
def emoji():
    return make_emoji()


def run(emoji, attacks=(SHORT,), **options) -> RobustnessReport:
    data = make_data(emoji[1])
    return evaluate_robustness(*emoji, [data], list(attacks), **{"progress": False, "probes": False, **options})


def test_a_defence_that_does_nothing_changes_no_recall(emoji, monkeypatch):
    monkeypatch.setitem(DEFENCES, "nothing", Nothing)
    plain, report = run(emoji), run(emoji, defence="nothing")
    assert [result.name for result in report.sets] == [result.name for result in plain.sets]
    for before, after in zip(plain.sets, report.sets, strict=True):
        assert after.verdicts["clean"] == before.verdicts["clean"]
        for attacker in ("through", "straight_through"):
            name = AttackSpec.of(SHORT).by(attacker).name
            assert after.verdicts[name] == before.verdicts[AttackSpec.of(SHORT).name]
        assert after.verdicts["robust"] == before.verdicts["robust"]


@pytest.mark.parametrize("attacker", ["unaware", "through"])
def test_recall_behind_noise_is_that_of_a_plain_transcription(emoji, attacker):
    data = make_data(emoji[1])
    spec = AttackSpec.of(SHORT).by(attacker, None if attacker == "unaware" else 2)
    plan = Plan.of(data, [spec])
    bare = _Classifiers(*emoji, None, ReadoutSpec.parse("sclip"), None).of(plan)
    defence = DefenceSpec.parse(NOISE["defence"]).wrap(bare)

    gallery = plan.gallery
    images = torch.stack([gallery[row]["images"] for row in plan.rows])
    labels = torch.stack([torch.tensor(gallery[row]["labels"]) for row in plan.rows])
    seeds = sample_seeds(0, 0, torch.tensor(plan.rows))
    attack = attack_to_the_end if attacker == "unaware" else attack_expected
    points = attack(spec, defence.seen_by(attacker), images, labels, seeds, class_names=plan.texts)
    own = gallery.images_of_captions()
    ranks = {}
    for name, pictures in {"clean": images, "attacked": points}.items():
        for index in range(3):
            with torch.no_grad():
                embeds = defence.embed(pictures, draw_seeds(seeds, "verdict", index))
            found = text_to_image_ranks(bare.class_embeds, F.normalize(embeds, dim=1), own)
            ranks.setdefault(name, []).append((own_ranks(defence.logits(embeds), labels), found))

    report = run(emoji, [{**SHORT, "attacker": attacker}], **NOISE)
    for result in report.sets:
        way, k = result.figure.direction, result.figure.k
        clean, attacked = (
            (torch.stack([of_draw[way == "T2I"] for of_draw in ranks[name]]) <= k).sum(0) > 1
            for name in ("clean", "attacked")
        )
        assert result.verdicts["clean"] == clean.int().tolist()
        assert result.verdicts["robust"] == (clean & attacked).int().tolist()
        assert 0 < result.robust_accuracy < result.clean_accuracy


def test_a_random_report_has_three_attackers_and_depends_on_no_batch_and_no_stop(emoji, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    report = run(emoji, verdict_file=file, max_samples=14, **NOISE)
    assert report.protocol["defence"] == {"defence": "random_noise", "eps": "30/255", "draws": 3, "eot": 2}
    eots = {"unaware": None, "through": 2, "straight_through": 2}
    names = [AttackSpec.of(SHORT).by(attacker, eots[attacker]).name for attacker in ATTACKERS]
    for result in report.sets:
        assert list(result.attacks) == names
        columns = [result.verdicts[name] for name in names]
        assert result.verdicts["robust"] == list(map(min, *columns))

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))
    assert run(emoji, verdict_file=file, batch_size=5, max_samples=14, **NOISE).to_dict() == report.to_dict()


@pytest.mark.parametrize("name", sorted(DEFENCES))
def test_defences_that_need_classes_are_refused_by_name_and_others_serve(emoji, name):
    cls = DEFENCES[name]
    assert cls.needs_classes == (name not in ("clipure", "clipure_released", "random_noise", "ttc"))
    if cls.needs_classes:
        message = "which retrieves captions, but it needs the classes of an image. Pass one of clipure, "
        with pytest.raises(ValueError, match=message):
            run(emoji, defence=name)
        return
    draws = {"draws": 1, "eot": 1} if cls.is_random else {}
    report = run(emoji, [{**SHORT, "num_steps": 1}], defence=name, max_samples=12, **draws)
    assert len(report.sets) == 6 and all(0 <= result.robust_accuracy <= 1 for result in report.sets)


def test_a_target_is_refused(emoji):
    data = make_data(emoji[1], target="drawn")
    with pytest.raises(ValueError, match="images are pulled to a target.*Leave the target or the defence out"):
        evaluate_robustness(*emoji, [data], [SHORT], defence="random_noise", progress=False)
