"""Defended models: three attackers, verdicts by draws, and reports that depend on no batch, order or process."""

import json

import pytest
import torch
from support import shared_evaluation
from support.defended import Identity, Quantise
from support.processes import Group
from support.sets import CE, MARGIN, make_data
from support.shared_evaluation import RANDOM, judged, reports
from support.tiny import make_images

from hf_pmgaft import AttackSpec, RobustnessReport, evaluate_robustness
from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import RetrievalDataset, ZeroShotDataset
from hf_pmgaft.defences import ATTACKERS, DEFENCES, PixelDefence, RandomNoise
from hf_pmgaft.defences.spec import DefenceSpec
from hf_pmgaft.evaluation.defended import DEFAULT_EOT, Defended
from hf_pmgaft.evaluation.draw_rules import Majority
from hf_pmgaft.evaluation.heads import NearestClassMean
from hf_pmgaft.evaluation.verdicts import VERDICTS
from hf_pmgaft.noise import draw_seeds

APGD = {"attack": "apgd", "eps": "20/255", "num_steps": 10}
SHORT = {**MARGIN, "num_steps": 4}
NOISE = {"defence": "random_noise", "eps": "30/255"}


class Seen(PixelDefence):
    """Does nothing, and counts who looks: images with a gradient or without, by attacker."""

    title = "seen"
    calls: list = []

    def purified(self, images, seeds=None, attacker="through"):
        self.calls.append((attacker, len(images), images.requires_grad))
        return images


class BlackForOdd(PixelDefence):
    """Makes images black in every other draw, so that exactly half of many draws are right."""

    title = "black for odd"
    is_random = True

    def purify(self, images, seeds):
        return torch.where((seeds % 2 == 1).view(-1, 1, 1, 1), 0.0, images)


class Recording(RandomNoise):
    """Keeps the seeds of passes with a gradient, and of those without, as they came."""

    title = "recording"
    with_gradient: list = []
    without: list = []

    def purify(self, images, seeds):
        (self.with_gradient if torch.is_grad_enabled() else self.without).append(seeds.tolist())
        return super().purify(images, seeds)


@pytest.fixture(autouse=True)
def defences(monkeypatch):
    own = [Identity, Quantise, Seen, BlackForOdd, Recording]
    for cls in own:
        monkeypatch.setitem(DEFENCES, cls.title.replace(" ", "_"), cls)
    monkeypatch.setattr(Seen, "calls", [])
    for name in ("with_gradient", "without"):
        monkeypatch.setattr(Recording, name, [])


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), **{"progress": False, **options})


def by(attack, attacker, eot=None) -> str:
    return AttackSpec.of(attack).by(attacker, eot).name


def without(report: RobustnessReport, *keys: str) -> dict:
    return {key: value for key, value in report.to_dict().items() if key not in keys}


# ---- Deterministic ones ----


@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_a_defence_that_does_nothing_changes_no_bit_of_any_figure(fitted, data, verdict):
    attacks = [SHORT, APGD, {**SHORT, "eps": "30/255"}]
    plain = run(fitted, data, attacks, verdict=verdict, eight_bit=True)
    report = run(fitted, data, attacks, verdict=verdict, eight_bit=True, defence="identity")
    before, after = plain.sets[0], report.sets[0]
    for attack in attacks:
        name = AttackSpec.of(attack).name
        for attacker in ("through", "straight_through"):
            assert after.verdicts[by(attack, attacker)] == before.verdicts[name]
    assert before.verdicts["clean"] == after.verdicts["clean"]
    if verdict == "any_iterate":  # of which the ends of walks are a part
        assert before.verdicts["robust"] == after.verdicts["robust"] and before.threats == after.threats
        assert before.robust_8bit_accuracy == after.robust_8bit_accuracy
    assert len(after.attacks) == 9 and report.flags == plain.flags == []


def test_the_headline_is_per_image_the_worst_of_three_attackers(fitted, data):
    result = run(fitted, data, [SHORT], defence="quantise", defence_kwargs={"levels": 6}).sets[0]
    columns = [result.verdicts[by(SHORT, attacker)] for attacker in ATTACKERS]
    assert result.verdicts["robust"] == [min(of_image) for of_image in zip(*columns, strict=True)]
    assert result.robust_accuracy <= min(result.attacks.values()) and result.draws is None
    assert "draws" not in result.to_dict()


def test_rounding_masks_gradients_is_broken_past_them_and_flagged(fitted, data):
    report = run(fitted, data, [SHORT], defence="quantise,levels=4", probes=False)
    result = report.sets[0]
    through, past = (result.attacks[by(SHORT, attacker)] for attacker in ("through", "straight_through"))
    assert through > past + 0.1
    (flag,) = [flag for flag in report.flags if flag["flag"] == "masked gradients"]
    assert flag["message"].startswith("attacks of linf 20/255 past the defence's gradient fool")
    assert "zero gradients" in {flag["flag"] for flag in run(fitted, data, [SHORT], defence="quantise").flags}


def test_every_attacker_looks_at_what_it_knows(fitted, data):
    run(fitted, data, [SHORT], defence="seen", probes=False, batch_size=40)
    with_gradient = [(attacker, seen) for attacker, _, seen in Seen.calls if seen]
    assert {attacker for attacker, _ in with_gradient} == {"through", "straight_through"}
    # The bare model is attacked to the end: one look at the clean images, and one at the points.
    Seen.calls.clear()
    run(fitted, data, [{**SHORT, "attacker": "unaware"}], defence="seen", probes=False, batch_size=40)
    assert [(attacker, seen) for attacker, _, seen in Seen.calls] == [("through", False)] * 2


def test_an_unaware_attack_ends_where_it_ends_and_not_at_the_first_wrong_point(fitted, data):
    """The last point of PGD, as papers report it, whatever the verdict."""
    attack = {**CE, "attacker": "unaware"}
    plain = run(fitted, data, [CE], verdict="last_iterate").sets[0]
    for verdict in ("any_iterate", "last_iterate"):
        result = run(fitted, data, [attack], verdict=verdict, defence="identity").sets[0]
        expected = plain.verdicts["robust"]
        if verdict == "any_iterate":
            expected = list(map(min, expected, plain.verdicts["clean"]))
        assert result.verdicts["robust"] == expected


def test_an_attack_may_name_its_attacker(fitted, data):
    report = run(fitted, data, [{**SHORT, "attacker": "straight_through"}], defence="quantise", probes=False)
    assert list(report.sets[0].attacks) == [by(SHORT, "straight_through")]
    assert report.protocol["attacks"] == [AttackSpec.of(SHORT).by("straight_through").to_dict()]


def test_the_protocol_says_how_and_without_a_defence_nothing(fitted, data):
    plain, report = run(fitted, data, [SHORT]), run(fitted, data, [SHORT], defence="quantise,levels=6")
    assert "defence" not in plain.protocol and plain.defence == []
    assert report.protocol["defence"] == {"defence": "quantise", "levels": 6}
    assert report.protocol["verdict"] == VERDICTS["any_iterate"] == plain.protocol["verdict"]
    assert report.headline_attacks == [AttackSpec.of(SHORT).by(attacker) for attacker in ATTACKERS]
    (line,) = report.defence
    assert line.startswith("Defended at test time by quantise (levels=6). Robust is, per image, the worst of all")
    _, *rows, last = report.attack_rows()
    assert [row[0] for row in rows] == [by(SHORT, attacker) for attacker in ATTACKERS]
    assert last == ["worst of all attackers, linf 20/255", "1", f"{100 * report.mean_robust_accuracy:.1f}"]


def test_what_differs_in_nothing_is_attacked_once_and_the_report_says_so(fitted, data):
    views = {"defence": "ensemble", "defence_kwargs": {"num_crops": 1}, "probes": False}
    report = run(fitted, data, [SHORT], **views)
    result = report.sets[0]
    assert list(result.attacks) == [by(SHORT, "unaware"), by(SHORT, "through")]
    assert report.defence[1:] == ["Straight through would be the same attack as through, and is not run again."]
    assert "; and through the whole defence." in report.defence[0] and "straight" not in report.defence[0]

    # Whoever asks for it has the same figures.
    asked = run(fitted, data, [{**SHORT, "attacker": "straight_through"}], **views)
    assert asked.sets[0].verdicts["robust"] == result.verdicts[by(SHORT, "through")]
    assert asked.defence[0].endswith("Its one attacker is straight through, past its gradient.")


def test_a_head_is_defended_too(fitted, data):
    head = NearestClassMean(data)
    plain = run(fitted, data, [SHORT], head=head).sets[0]
    result = run(fitted, data, [SHORT], head=head, defence="identity").sets[0]
    assert result.verdicts["robust"] == plain.verdicts["robust"]


# ---- Random ones ----


@pytest.fixture(scope="module")
def small(fitted):
    return make_data(fitted[1], 16)


def noisy(fitted, data, attacks=(SHORT, APGD), **options) -> RobustnessReport:
    return run(fitted, data, attacks, **{"defence": NOISE, "eot": 2, "draws": 3, "probes": False, **options})


@pytest.fixture(scope="module")
def report(fitted, small) -> RobustnessReport:
    return noisy(fitted, small)


def test_a_random_defence_is_judged_by_majority(report):
    result = report.sets[0]
    assert report.protocol["defence"] == {**NOISE, "draws": 3, "eot": 2}
    assert report.protocol["verdict"] == VERDICTS["majority"] == report.verdict
    eots = {"unaware": None, "through": 2, "straight_through": 2}
    names = [by(attack, attacker, eots[attacker]) for attack in (SHORT, APGD) for attacker in ATTACKERS]
    assert list(result.attacks) == names and [spec.name for spec in report.attacks] == names
    assert 0 < result.robust_accuracy < result.clean_accuracy
    assert set(result.draws) == {"clean", "robust", *names}
    for row in result.draws.values():
        assert row["every_draw"] <= row["mean_share"]
    assert len(report.defence) == 2 and "3 draws" in report.defence[1]
    header, first, *_, last = report.attack_rows()
    assert header == ["attack", "sets", "standing", "mean share", "every draw"]
    robust = result.draws["robust"]
    shares = (result.robust_accuracy, robust["mean_share"], robust["every_draw"])
    assert last[2:] == [f"{100 * share:.1f}" for share in shares]
    assert len({len(row) for row in report.attack_rows()}) == 1 and first[0] == names[0]


def test_a_report_of_draws_is_read_again(report, tmp_path):
    report.save(tmp_path / "report.json")
    assert RobustnessReport.load(tmp_path / "report.json") == report
    written = json.loads((tmp_path / "report.json").read_text())
    written["sets"][0]["draws"]["robust"]["mean_share"] = 40.0
    (tmp_path / "report.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match="robust mean_share figure of 'own' is 40.0"):
        RobustnessReport.load(tmp_path / "report.json")


@pytest.mark.parametrize("batch_size", [1, 7])
def test_reports_do_not_depend_on_the_batch(fitted, small, report, batch_size):
    assert noisy(fitted, small, batch_size=batch_size).to_dict() == report.to_dict()


def test_reports_do_not_depend_on_the_order(fitted, small, report):
    backwards = make_data(fitted[1], 16)
    backwards.sample_ids = list(range(16))[::-1]
    other, result = noisy(fitted, backwards, batch_size=5).sets[0], report.sets[0]
    assert other.verdicts.keys() == result.verdicts.keys()
    for key, column in result.verdicts.items():
        assert other.verdicts[key] == column[::-1], key
    assert other.draws == {key: pytest.approx(row) for key, row in result.draws.items()}


def test_a_killed_evaluation_goes_on(fitted, small, report, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    assert noisy(fitted, small, batch_size=5, verdict_file=file).to_dict() == report.to_dict()
    lines = file.read_text().splitlines(keepends=True)
    assert json.loads(lines[0])["protocol"]["defence"] == report.protocol["defence"]
    file.write_text("".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:9])
    assert noisy(fitted, small, verdict_file=file).to_dict() == report.to_dict()
    with pytest.raises(ValueError, match="differs in protocol.defence.draws"):
        noisy(fitted, small, verdict_file=file, draws=5)


def test_processes_come_to_the_report_of_one(fitted, tmp_path):
    torch.save(fitted[0].state_dict(), tmp_path / "fitted.pt")
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        Group(count, shared_evaluation.evaluate, folder, 0, (RANDOM,), log=folder).run()
    (alone,) = reports(tmp_path / "1", RANDOM)
    assert reports(tmp_path / "2", RANDOM) == [alone, alone]
    counts = judged(tmp_path / "2", RANDOM)
    assert all(set(of_rows.values()) == {1} for of_rows in counts.values())


def test_half_of_the_draws_are_no_majority_and_as_many_are_drawn_as_were_asked_for(fitted, data):
    options = {"defence": "black_for_odd", "attacks": ["fgsm,eps=1/255,attacker=unaware"], "probes": False}
    results = {draws: run(fitted, data, draws=draws, **options).sets[0] for draws in (1, 2, 40)}
    clean = {draws: result.draws["clean"] for draws, result in results.items()}
    assert clean[1]["mean_share"] == clean[1]["every_draw"] == results[1].clean_accuracy
    assert clean[2]["mean_share"] > clean[2]["every_draw"] == results[2].clean_accuracy
    # Right in half of the draws; a black image is of one class.
    plain = run(fitted, data, [SHORT]).sets[0].clean_accuracy
    assert clean[40]["mean_share"] == pytest.approx((plain + 0.25) / 2, abs=0.05)
    assert clean[40]["every_draw"] < 0.3


SMOOTHED = {"defence": "smoothing,sigma=0.5,alpha=0.05", "draws": 20, "eot": 1, "probes": False}


def test_smoothing_is_judged_by_its_own_prediction_and_abstentions_are_wrong(fitted, data):
    report = run(fitted, data, [SHORT], **SMOOTHED)
    result = report.sets[0]
    described = {"defence": "smoothing", "sigma": 0.5, "alpha": 0.05, "draws": 20, "eot": 1}
    assert report.protocol["defence"] == described
    assert report.protocol["verdict"] == VERDICTS["prediction"]
    assert "most frequent class of 20 draws" in report.defence[-1] and "alpha = 0.05" in report.defence[-1]
    # Some images are neither right nor wrong, which a majority could not tell.
    clean = result.draws["clean"]
    assert 0 < clean["abstained"] <= 1 - result.clean_accuracy
    assert clean["abstained"] <= result.draws["robust"]["abstained"]
    header, *_, last = report.attack_rows()
    assert header[-3:] == ["mean share", "every draw", "abstained"]
    assert last[-1] == f"{100 * result.draws['robust']['abstained']:.1f}"

    strict = run(fitted, data, [SHORT], **{**SMOOTHED, "defence": "smoothing,sigma=0.5,alpha=0.0001"}).sets[0]
    assert strict.draws["clean"]["abstained"] > clean["abstained"]
    assert strict.clean_accuracy < result.clean_accuracy


def test_smoothing_takes_a_hundred_draws_and_is_not_judged_by_majority(fitted, data):
    assert Defended.of("smoothing").draws == 100
    with pytest.raises(ValueError, match="Even if all 10 agree, the p-value is above alpha.* Pass draws from 11"):
        Defended.of("smoothing", draws=10)
    with pytest.raises(ValueError, match="verdict='majority' with smoothing, whose draws make .* for 'prediction'"):
        run(fitted, data, [SHORT], defence="smoothing", verdict="majority")
    with pytest.raises(ValueError, match="verdict='prediction' with random noise, .* for 'majority'"):
        run(fitted, data, [SHORT], defence="random_noise", verdict="prediction")


@pytest.mark.parametrize("batch_size", [3, 50])
def test_reports_of_smoothing_do_not_depend_on_the_batch(fitted, small, batch_size):
    expected = run(fitted, small, [SHORT], **SMOOTHED)
    assert run(fitted, small, [SHORT], **SMOOTHED, batch_size=batch_size).to_dict() == expected.to_dict()


def test_no_draw_that_led_an_attack_gives_a_verdict(fitted, small):
    attack = "pgd,eps=1/255,num_steps=3,attacker=through,eot=2"
    result = run(fitted, small, [attack], defence="recording", draws=3, probes=False, seed=4).sets[0]
    rows = torch.arange(16)

    def seeds_of(rows, purpose, count):
        return [draw_seeds(sample_seeds(4, 0, rows), purpose, index).tolist() for index in range(count)]

    right = rows[torch.tensor(result.verdicts["clean"], dtype=torch.bool)]
    # Three draws of few images are taken at once.
    clean, *looks, verdict = Recording.without
    assert clean == sum(seeds_of(rows, "verdict", 3), []) and verdict == sum(seeds_of(right, "verdict", 3), [])
    # An attack looks at the images first, by draws that its three steps do not take again.
    assert looks == seeds_of(right, "attack", 2)
    assert Recording.with_gradient == seeds_of(right, "attack", 8)[2:]


@pytest.mark.parametrize("defence", ["identity", "random_noise"])
def test_other_threats_have_attackers_too_but_corruptions_and_are_judged_alike(fitted, small, defence):
    attacks = [SHORT, {"attack": "patch", "size": 4, "num_steps": 2}, "corruption,kind=gaussian_noise,severity=5"]
    result = run(fitted, small, attacks, defence=defence, probes=False).sets[0]
    eot = {"identity": None, "random_noise": DEFAULT_EOT}[defence]
    eots = {"unaware": None, "through": eot, "straight_through": eot}
    names = [by(attack, attacker, eots[attacker]) for attack in attacks[:2] for attacker in ATTACKERS]
    assert list(result.attacks) == [*names, "gaussian_noise 5"]
    assert set(result.threats) == {"linf 20/255", "patch 4x4", "gaussian_noise 5"}
    assert result.threats["patch 4x4"] <= min(result.attacks[name] for name in names[3:]) < result.clean_accuracy
    assert result.threats["gaussian_noise 5"] <= result.clean_accuracy


def test_rounded_points_are_judged_by_majority_too(fitted, small):
    result = noisy(fitted, small, [{**SHORT, "eps": "0.6/255"}], eight_bit=True, batch_size=5).sets[0]
    assert result.robust_accuracy <= result.robust_8bit_accuracy <= result.clean_accuracy
    # No other grey level is in the ball: what comes back is the clean image.
    assert result.robust_8bit_accuracy == result.clean_accuracy


def test_a_random_defence_raises_no_flag_of_a_random_model(fitted, data):
    flags = run(fitted, data, [SHORT], defence="random_noise,eps=10/255", eot=2).flags
    assert {flag["flag"] for flag in flags}.isdisjoint({"random", "noise"})


# ---- What is refused ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"defence": "armour"}, "no defence 'armour'"),
        ({"eot": 4}, "eot=4 without a defence"),
        ({"draws": 5}, "draws=5 without a defence"),
        ({"defence_kwargs": {"levels": 3}}, "defence_kwargs=.* without a defence"),
        ({"defence": "identity", "eot": 4}, "eot=4 with identity, which draws nothing"),
        ({"defence": "identity", "draws": 4}, "draws=4 with identity, which draws nothing"),
        ({"defence": "random_noise", "draws": 0}, "draws=0"),
        ({"defence": "random_noise", "eot": 0}, "eot=0"),
        ({"attacks": [{**SHORT, "attacker": "through"}]}, "attacker=through.* without a defence"),
        ({"attacks": [{**SHORT, "eot": 2}]}, "eot=2.* without a defence"),
        ({"attacks": [{**SHORT, "eot": 2}], "defence": "identity"}, "eot=2.* with identity, which draws nothing"),
        ({"verdict": "majority"}, "verdict='majority' without a defence"),
        ({"verdict": "prediction"}, "verdict='prediction' without a defence"),
        ({"verdict": "prediction", "defence": "identity"}, "verdict='prediction' with identity, which draws nothing"),
        ({"verdict": "majority", "defence": "identity"}, "verdict='majority' with identity, which draws nothing"),
        (
            {"verdict": "any_iterate", "defence": "random_noise"},
            "verdict='any_iterate' with random noise, which draws",
        ),
        ({"verdict": "last_iterate", "defence": "random_noise"}, "verdict='last_iterate' with random noise"),
        ({"defence": "identity", "attack_precision": "bf16"}, "attack_precision='bf16' with the defence identity"),
        ({"defence": "identity", "compile": "default"}, "compile='default' with the defence identity"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_computed(fitted, data, options, message):
    with pytest.raises(ValueError, match=message):
        run(fitted, data, **{"attacks": [SHORT], **options})


def test_class_names_that_a_defence_refuses_end_an_evaluation_before_it_judges_any_set(fitted, data, tmp_path):
    model, processor = fitted
    positions = model.config.text_config.max_position_embeddings
    names = [f"{name} {'x ' * (positions - 8)}" for name in data.class_names]  # fit alone, and not behind a context
    long = ZeroShotDataset(make_images(8), processor, names, "{}", name="long")
    file = tmp_path / "verdicts.jsonl"
    with pytest.raises(ValueError, match=rf"R-TPT's prompts .* of the model's {positions}"):
        evaluate_robustness(
            model, processor, [data, long], [SHORT], defence="r_tpt", draws=1, eot=1, verdict_file=file, progress=False
        )
    assert len(file.read_text().splitlines()) == 1  # whose verdicts it would hold


def test_only_classes_of_whole_images_are_defended(fitted, data):
    captions = RetrievalDataset.__new__(RetrievalDataset)
    captions.name = "pairs"
    with pytest.raises(ValueError, match="identity with the set 'pairs', which retrieves captions, but it needs"):
        evaluate_robustness(*fitted, [data, captions], [SHORT], defence="identity")


def test_numbers_have_defaults_and_no_defence_has_options_of_their_names():
    assert Defended.of("random_noise").describe()["eot"] == DEFAULT_EOT
    assert Defended.of({"defence": "random_noise"}, {"eps": "1/255"}).describe() == {
        **{"defence": "random_noise", "eps": "1/255"},
        **{"draws": Majority.default_draws, "eot": DEFAULT_EOT},
    }
    spec = DefenceSpec.parse("random_noise,eps=2/255")
    assert Defended.of(spec, {"eps": "1/255"}).spec == Defended.of("random_noise,eps=1/255").spec != spec
    assert Defended.of(None) is None
    for name in DEFENCES:
        assert not {"eot", "draws"} & set(Defended.of(name).spec.options)
