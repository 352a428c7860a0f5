"""Transfer: images are made on another model, as that one sees them, and the one under test only judges them."""

import copy
import json

import pytest
import torch
from support.paths import EXAMPLES
from support.sets import CE, MARGIN, make_data
from support.tiny import make_model, make_processor

from hf_pmgaft import (
    AttackSpec,
    RetrievalDataset,
    RobustnessReport,
    SegmentationDataset,
    ZeroShotClassifier,
    at_resolution,
    encode_class_names,
    evaluate_robustness,
)
from hf_pmgaft.attacks.expected import attack_to_the_end
from hf_pmgaft.attacks.losses import correct
from hf_pmgaft.attacks.options import parse_options
from hf_pmgaft.cli import evaluate
from hf_pmgaft.cli.compare import draw_reports
from hf_pmgaft.defences.spec import DefenceSpec
from hf_pmgaft.evaluation import transfer
from hf_pmgaft.evaluation.heads import NearestClassMean
from hf_pmgaft.evaluation.plan import Plan, group_of
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.evaluation.sanity import verdict_flags
from hf_pmgaft.fingerprints import fingerprint
from hf_pmgaft.noise import draw_seeds, sample_seeds

SHORT = {**CE, "num_steps": 4}
FROM = {**SHORT, "eps": "60/255", "source": "other"}
NAME = "PGD-4 ce linf 60/255 from other"
OTHER_MEAN, OTHER_STD = [0.4, 0.5, 0.6], [0.3, 0.25, 0.2]


@pytest.fixture(scope="module")
def other(fitted):
    """A model like the fitted one, at another resolution, with other statistics."""
    model, processor = at_resolution(copy.deepcopy(fitted[0]), copy.deepcopy(fitted[1]), 32)
    processor.image_processor.image_mean, processor.image_processor.image_std = OTHER_MEAN, OTHER_STD
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter += 0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return model, processor


class Recording(NearestClassMean):
    """Keeps the models that it was fitted to."""

    def fit(self, model, processor, data):
        self.fitted = [*getattr(self, "fitted", []), model]
        return super().fit(model, processor, data)


def frozen_of(module) -> tuple[bool, bool]:
    return module.training, any(parameter.requires_grad for parameter in module.parameters())


def run(fitted, data, attacks, **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], attacks, **{"progress": False, "probes": False, **options})


# ---- On whom, and by whom ----


@pytest.mark.parametrize(
    "attack",
    [
        SHORT,
        {**SHORT, "eps": 1.0, "norm": "l2", "loss": "margin", "momentum": 0.9},
        {"attack": "fgsm", "eps": "30/255"},
        {"attack": "cw", "eps": "20/255", "norm": "linf", "num_steps": 4},
        {"attack": "patch", "size": 4, "num_steps": 3},
    ],
    ids=lambda attack: attack["attack"] + attack.get("norm", ""),
)
def test_the_model_itself_as_source_gives_the_bits_of_the_white_box_attack(fitted, data, attack):
    """Of attacks with one end, by verdicts on ends alone. Walks that stop early or have several ends are below."""
    white = run(fitted, data, [attack], verdict="last_iterate", eight_bit=True).sets[0]
    given = {"itself": fitted}
    options = {"verdict": "last_iterate", "eight_bit": True, "sources": given}
    result = run(fitted, data, [{**attack, "source": "itself"}], **options).sets[0]
    assert (
        result.verdicts["robust"] == white.verdicts["robust"] and result.verdicts["clean"] == white.verdicts["clean"]
    )
    assert result.robust_8bit_accuracy == white.robust_8bit_accuracy
    assert 0 < white.robust_accuracy < white.clean_accuracy


@pytest.mark.parametrize("attack", [SHORT, {**MARGIN, "restarts": 2}, {"attack": "apgd"}])
@pytest.mark.parametrize("verdict", ["any_iterate", "last_iterate"])
def test_images_are_made_on_the_source_to_the_end_and_judged_by_the_other(fitted, other, data, attack, verdict):
    attack = {**attack, "eps": "60/255", "num_steps": 4}
    images = torch.stack([data[row]["images"] for row in range(len(data))])
    labels = torch.tensor([data[row]["labels"] for row in range(len(data))])
    on_source, judge = (
        ZeroShotClassifier.from_model(*pair, encode_class_names(*pair, data.class_names, data.prompt_templates))
        for pair in (other, fitted)
    )
    seeds = sample_seeds(4, 0, torch.arange(len(data)))
    points = attack_to_the_end(AttackSpec.of(attack), on_source, images, labels, seeds, class_names=data.class_names)
    with torch.no_grad():
        expected, clean = correct(judge(points), labels), correct(judge(images), labels)
    if verdict == "any_iterate":
        expected &= clean
    assert 0 < expected.sum() < clean.sum()

    options = {"verdict": verdict, "seed": 4, "sources": {"other": other}}
    result = run(fitted, data, [{**attack, "source": "other"}], **options).sets[0]
    assert result.verdicts["robust"] == expected.int().tolist()


def test_the_source_sees_images_as_it_does_and_the_other_one_takes_no_gradient(fitted, other, data):
    seen = {"source": [], "judge": []}
    hooks = [
        pair[0].vision_model.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: seen[name].append(args[0] if args else kwargs["pixel_values"]),
            with_kwargs=True,
        )
        for name, pair in (("source", other), ("judge", fitted))
    ]
    training = [module.training for module in other[0].train().modules()]
    modes = []
    hooks.append(other[0].visual_projection.register_forward_hook(lambda module, *_: modes.append(frozen_of(module))))
    run(fitted, data, [FROM], sources={"other": other})
    for hook in hooks:
        hook.remove()
    # Texts pass with a few blank images.
    seen = {name: [pixels for pixels in passes if len(pixels) == len(data)] for name, passes in seen.items()}

    # A clean look and one at the points; on the source one before the walk and four steps.
    assert [pixels.requires_grad for pixels in seen["judge"]] == [False, False]
    assert len(seen["source"]) == 5
    assert sum(pixels.requires_grad for pixels in seen["source"]) == 4
    images = torch.stack([data[row]["images"] for row in range(len(data))])
    large = torch.nn.functional.interpolate(images, size=(32, 32), mode="bicubic", align_corners=False)
    expected = (large - torch.tensor(OTHER_MEAN).view(1, 3, 1, 1)) / torch.tensor(OTHER_STD).view(1, 3, 1, 1)
    torch.testing.assert_close(seen["source"][0], expected)
    assert set(modes) == {(False, False)}
    assert [module.training for module in other[0].modules()] == training
    assert all(parameter.requires_grad for parameter in other[0].parameters())
    other[0].eval()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_reports_do_not_depend_on_the_batch(fitted, other, batch_size):
    small = make_data(fitted[1], 16)
    attacks = [FROM, {"attack": "apgd", "eps": "20/255", "num_steps": 3, "source": "other"}]
    whole = run(fitted, small, attacks, sources={"other": other}, eight_bit=True)
    assert run(fitted, small, attacks, sources={"other": other}, eight_bit=True, batch_size=batch_size) == whole


def test_a_head_judges_images_that_the_source_makes_by_its_texts(fitted, other, data):
    options = {"sources": {"other": other}, "verdict": "last_iterate"}
    head = Recording(data)
    result = run(fitted, data, [FROM], head=head, **options).sets[0]
    assert head.fitted == [fitted[0]]
    by_texts = run(fitted, data, [FROM], **options).sets[0]
    assert result.verdicts["robust"] != by_texts.verdicts["robust"]
    assert result.robust_accuracy < result.clean_accuracy


# ---- A threat of its own ----


def test_transfer_is_never_mixed_into_the_worst_case_of_the_model_itself(fitted, other, data):
    white = {**MARGIN, "num_steps": 4, "eps": "20/255"}
    # Another order of radii, and a source of smaller radius: neither goes on from what the other left.
    attacks = [white, {**FROM, "eps": "12/255"}, FROM]
    report = run(fitted, data, attacks, sources={"other": other}, eight_bit=True)
    alone = run(fitted, data, [white], eight_bit=True)
    result, before = report.sets[0], alone.sets[0]
    assert set(result.threats) == {"linf 20/255", "linf 12/255 from other", "linf 60/255 from other"}
    assert result.verdicts["robust"] == before.verdicts["robust"]
    assert result.robust_8bit_accuracy == before.robust_8bit_accuracy
    assert 1 > result.threats["linf 60/255 from other"] > result.robust_accuracy
    assert report.rows()[0][-2:] == ["linf 12/255 from other", "linf 60/255 from other"]

    first = run(fitted, data, attacks[::-1], sources={"other": other}, eight_bit=True)
    assert first.protocol["headline"] == "linf 60/255 from other"
    only = run(fitted, data, [attacks[2]], sources={"other": other}, eight_bit=True, verdict="last_iterate").sets[0]
    expected = map(
        min, only.verdicts["robust"], before.verdicts["clean"], first.sets[0].verdicts[first.attacks[1].name]
    )
    assert first.sets[0].verdicts["robust"] == list(expected)


def test_groups_and_worst_cases_are_of_one_source(data):
    plain, here, there = (AttackSpec.of({**CE, **own}) for own in ({}, {"source": "here"}, {"source": "there"}))
    assert len({group_of(spec) for spec in (plain, here, there)}) == 3
    patch = {"attack": "patch", "size": 3}
    assert group_of(AttackSpec.of({**patch, "source": "here"})) == "patch 3x3 from here"
    plan = Plan.of(data, [plain, here, AttackSpec.of({**CE, "eps": "10/255", "source": "here"})])
    assert plan.leading_to(here.threat) == [plan.names[0], here.name] and plan.leading_to(plain.threat) == [plain.name]


def test_no_flag_of_masked_gradients_follows_from_how_images_transfer():
    specs = {loss: AttackSpec.of({**CE, "loss": loss}) for loss in ("ce", "margin")}

    def flags(source):
        named = [AttackSpec.of({**spec.to_dict(), **source}) for spec in specs.values()]
        left = {named[0].name: 0.9, named[1].name: 0.2}
        result = SetResult("own", 4, 100, 1.0, 0.2, left, threats={named[0].threat: 0.2})
        return [flag["flag"] for flag in verdict_flags(result, named)]

    assert flags({}) == ["weak attack"] and flags({"source": "other"}) == []


# ---- Judged behind a defence ----


def drawn_at(points, labels, judge, draws: int, seeds) -> torch.Tensor:
    """How many fresh draws of a defence have points right, `[B]`."""
    right = [correct(judge(points, draw_seeds(seeds, "verdict", index)), labels) for index in range(draws)]
    return sum(each.int() for each in right)


@pytest.mark.parametrize("defence", ["ensemble,num_crops=1", "random_noise,eps=40/255"])
def test_a_defence_judges_images_that_the_source_makes_without_it(fitted, other, data, defence):
    images = torch.stack([data[row]["images"] for row in range(len(data))])
    labels = torch.tensor([data[row]["labels"] for row in range(len(data))])
    on_source, bare = (
        ZeroShotClassifier.from_model(*pair, encode_class_names(*pair, data.class_names, data.prompt_templates))
        for pair in (other, fitted)
    )
    seeds = sample_seeds(0, 0, torch.arange(len(data)))
    points = attack_to_the_end(AttackSpec.of(FROM), on_source, images, labels, seeds, class_names=data.class_names)
    judge = DefenceSpec.parse(defence).wrap(bare)
    with torch.no_grad():
        clean, expected = (drawn_at(each, labels, judge, 3, seeds) > 1 for each in (images, points))
    assert 0 < (clean & expected).sum() < clean.sum()

    options = {"defence": defence, "sources": {"other": other}, "draws": 3 if judge.is_random else None}
    result = run(fitted, data, [FROM], **options).sets[0]
    assert result.verdicts["robust"] == (clean & expected).int().tolist()


@pytest.mark.parametrize("defence", ["ensemble,num_crops=1", "random_noise,eps=40/255"])
def test_it_stands_beside_the_attackers_and_in_none_of_their_worst_cases(fitted, other, data, defence):
    report = run(fitted, data, [SHORT, FROM], defence=defence, sources={"other": other})
    alone = run(fitted, data, [SHORT], defence=defence)
    result = report.sets[0]
    assert list(result.attacks) == [*alone.sets[0].attacks, NAME]
    assert set(result.threats) == {"linf 20/255", "linf 60/255 from other"}
    assert result.verdicts["robust"] == alone.sets[0].verdicts["robust"]
    line = "Images from another model were made without the defence, which judges them: threats of their own."
    assert line in report.defence and line not in alone.defence
    assert FROM["source"] in report.protocol["sources"]
    assert [row[0] for row in report.attack_rows()[-2:]] == [NAME, "worst of all attackers, linf 20/255"]


def test_a_source_that_fools_more_than_white_box_attacks_is_flagged_beyond_doubt():
    white, transferred = AttackSpec.of(CE), AttackSpec.of({**CE, "source": "other"})

    def flags(of_white, of_source, count=1000, specs=(white, transferred)):
        standing = {white.name: of_white, transferred.name: of_source}
        columns = {name: [row < share * count for row in range(count)] for name, share in standing.items()}
        threats = {white.threat: of_white, transferred.threat: of_source}
        result = SetResult("own", 4, count, 1.0, of_white, standing, {"clean": [1] * count, **columns}, threats)
        return verdict_flags(result, specs)

    (flag,) = flags(0.5, 0.4)
    assert flag["flag"] == "transfer"
    assert flag["message"].startswith("attacks of linf 20/255 from other fool 10.0% more of the images")
    assert flags(0.4, 0.5) == flags(0.5, 0.498) == flags(0.5, 0.4, count=20) == []
    # Of another radius it says nothing.
    larger = AttackSpec.of({**CE, "eps": "30/255"})
    assert flags(0.5, 0.4, specs=[larger, transferred]) == []


# ---- What it is called, and what reports hold ----


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "pgd,eps=4/255,source=openai/clip-vit-base-patch32",
            "PGD-10 ce linf 4/255 from openai/clip-vit-base-patch32",
        ),
        ("pgd,eps=4/255,source=own/clip@v2:1", "PGD-10 ce linf 4/255 from own/clip@v2:1"),
        ("apgd_t,eps=4/255,num_steps=20,source=/a/b/robust/", "APGD-T linf 4/255 from robust (num_steps=20)"),
        ("autoattack,eps=4/255,source=../robust", "AutoAttack standard linf 4/255 from robust"),
        ("patch,size=16,source=outputs/robust", "PATCH 16x16 from outputs/robust"),
        ("typographic,source=robust", "typographic word 20% from robust"),
    ],
)
def test_the_name_and_the_threat_say_on_which_model(text, name):
    spec = AttackSpec.parse(text)
    assert spec.name == name and spec.threat.endswith(f" from {spec.source_name}")
    assert all(part.source == spec.source and part.threat == spec.threat for part in spec.expand(10))
    plain = AttackSpec.parse(text.split(",source")[0])
    assert "source" not in plain.to_dict() and plain.source is None
    assert spec.to_dict() == {**plain.to_dict(), "source": spec.source} and AttackSpec.of(spec) == spec
    assert spec.walk(10) == plain.walk(10) if spec.attack != "autoattack" else True


def test_the_protocol_says_what_made_the_images_and_is_read_again(fitted, other, data, tmp_path):
    folder = tmp_path / "outputs" / "other"
    for part in other:
        part.save_pretrained(folder)
    report = run(fitted, data, [SHORT, {**FROM, "source": folder}])
    spec = report.attacks[1]
    assert (
        spec.name == NAME and spec.threat in report.sets[0].threats and report.headline_attacks == report.attacks[:1]
    )
    assert report.protocol["sources"] == {
        "other": {
            "fingerprint": fingerprint(other[0]),
            "logit_scale": pytest.approx(other[0].logit_scale.exp().item(), abs=1e-4),
            "image_mean": OTHER_MEAN,
            "image_std": OTHER_STD,
            "image_size": 32,
            "prompt_templates": {"own": ["a photo of the {}"]},
        }
    }
    (line,) = report.transfer
    assert line.startswith("Images from other are made on that model alone") and "(32 pixels)" in line
    assert line in report._repr_html_()
    report.save(tmp_path / "report.json")
    assert RobustnessReport.load(tmp_path / "report.json") == report
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()

    # The same from memory, and without a source what it was before there were any.
    again = run(fitted, data, [SHORT, FROM], sources={"other": other})
    assert again.to_dict() == report.to_dict()
    plain = run(fitted, data, [SHORT])
    assert "sources" not in plain.protocol and plain.transfer == []
    assert plain.sets[0].verdicts["robust"] == report.sets[0].verdicts["robust"]


def test_verdicts_on_file_are_of_one_source(fitted, other, data, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    report = run(fitted, data, [FROM], sources={"other": other}, verdict_file=file)
    assert json.loads(file.read_text().splitlines()[0])["protocol"]["sources"] == report.protocol["sources"]
    with pytest.raises(ValueError, match="differs in protocol.sources.other.fingerprint"):
        run(fitted, data, [FROM], sources={"other": fitted}, verdict_file=file)


def test_each_source_is_loaded_once(fitted, other, data, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(transfer, "load_pair", lambda name: loaded.append(name) or other)
    second = make_data(fitted[1], 8)
    second.name = "second"
    attacks = [FROM, {**FROM, "loss": "margin"}]
    report = evaluate_robustness(*fitted, [data, second], attacks, progress=False, probes=False)
    assert loaded == ["other"] and len(report.sets) == 2


def test_curves_against_the_radius_are_of_the_model_itself(fitted, other, data, tmp_path):
    report = run(fitted, data, [FROM], sources={"other": other})
    draw_reports({"own": report}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bars.png"}


def test_the_command_line_names_a_source(tmp_path, capsys):
    file = tmp_path / "report.json"
    model = EXAMPLES / "emoji" / "model"
    evaluate.main(
        [
            *("--eval_sets", f"{EXAMPLES / 'emoji' / 'data'}:activities", "--prompt_template", "an emoji of {}"),
            *("--max_samples", "12", "--verdict", "last_iterate", "--output_file", str(file)),
            *("--attacks", "fgsm", f"fgsm,source={model}"),
        ]
    )
    printed = capsys.readouterr().out
    report = RobustnessReport.load(file)
    result = report.sets[0]
    assert result.verdicts["FGSM ce linf 4/255 from model"] == result.verdicts["FGSM ce linf 4/255"]
    assert report.transfer[0] in printed and "FGSM ce linf 4/255 from model" in printed


# ---- What is refused ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("universal,file=noise.safetensors,eps=4/255,source=other", "'universal' takes no source"),
        ("corruption,kind=jpeg,severity=3,source=other", "'corruption' takes no source"),
        ("sea,eps=4/255,source=other", "'sea' takes no source"),
        ("pgd,eps=4/255,source=other,attacker=unaware", "source='other' with attacker='unaware'.*Leave one"),
        ("pgd,eps=4/255,source=other,eot=2", "source='other' with eot=2.*Leave one"),
        ("pgd,eps=4/255,source=7", "source=7, which is no name.*./7"),
        ("pgd,eps=4/255,source=", "source=None, which is no name"),
    ],
)
def test_what_no_source_can_be_of_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        AttackSpec.of(parse_options(text))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sources": {"others": None}}, ValueError, "sources \\['others'\\], which no attack names"),
        ({"attacks": [FROM, {**FROM, "source": "./other"}]}, ValueError, "sources 'other' and './other'.*both call"),
        ({}, OSError, "source 'other' cannot make images.*other"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_computed(
    fitted, data, tmp_path, options, error, message
):
    with pytest.raises(error, match=message):
        run(fitted, data, **{"attacks": [FROM], **options}, verdict_file=tmp_path / "verdicts.jsonl")
    assert not (tmp_path / "verdicts.jsonl").exists()


@pytest.mark.parametrize(
    ("kind", "does"), [(RetrievalDataset, "retrieves captions"), (SegmentationDataset, "segments pixels")]
)
def test_only_classes_of_whole_images_are_judged(fitted, data, kind, does):
    others = kind.__new__(kind)
    others.name = "others"
    with pytest.raises(ValueError, match=f"{NAME} with the set 'others', which {does}"):
        evaluate_robustness(*fitted, [data, others], [FROM])


def test_a_source_without_a_text_tower_is_refused(fitted, data):
    with pytest.raises(
        TypeError, match="source 'other' cannot make images: You passed a CLIPVisionTransformer|CLIPVis"
    ):
        run(fitted, data, [FROM], sources={"other": (make_model().vision_model, make_processor())})


def test_a_source_without_weights_is_refused(fitted, data):
    with pytest.raises((TypeError, ValueError), match="source 'other' cannot make images"):
        run(fitted, data, [FROM], sources={"other": (make_model().to("meta"), make_processor())})
