"""The model card: its metadata reads back, its figures are the report's, and nothing private is in it."""

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, metadata_load
from peft import LoraConfig, PeftModel, get_peft_model
from support.cards import PGD, make_report, rows, unknown_keys
from support.families import DUAL, ENCODER, image_processor, make
from support.tiny import CLASS_NAMES, draw, make_images, make_model, make_pair_for, make_processor
from transformers import CLIPModel

from hf_pmgaft import AttackSpec, PMGAFTConfig, ZeroShotClassifier, encode_class_names, load_model
from hf_pmgaft.data import training_examples
from hf_pmgaft.defences import ATTACKERS
from hf_pmgaft.evaluation.report import RobustnessReport, SetResult
from hf_pmgaft.hub.card import model_card, save_model_card
from hf_pmgaft.models.backbones import BACKBONES, get_encoder
from hf_pmgaft.objectives import OBJECTIVES, Objective, make_objective
from hf_pmgaft.training.record import training_record
from hf_pmgaft.training.texts import Texts
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.tuning.saved import save_tuning

# What the Hub's documentation names for a model card (https://github.com/huggingface/hub-docs/blob/main/modelcard.md,
# https://huggingface.co/docs/hub/model-cards): the client takes any key, and the Hub does nothing with others. `None`
# is any value; the args are free.
RESULT = {
    "task": {"type": None, "name": None},
    "dataset": {"type": None, "name": None, "config": None, "split": None, "revision": None, "args": None},
    "metrics": [
        {
            "type": None,
            "value": None,
            "name": None,
            "config": None,
            "args": None,
            "verified": None,
            "verifyToken": None,
        }
    ],
    "source": {"name": None, "url": None},
}
CARD_KEYS = {
    **dict.fromkeys(["language", "license", "license_name", "license_link", "library_name", "tags", "datasets"]),
    **dict.fromkeys(["buckets", "metrics", "base_model", "base_model_relation", "new_version", "pipeline_tag"]),
    **dict.fromkeys(["thumbnail", "co2_eq_emissions", "widget", "inference"]),
    "model-index": [{"name": None, "results": [RESULT]}],
}
TOKEN = "hf_thisisasecret"


BEFORE = make_report({"food": (0.81, 0.01), "pets": (0.63, 0.02)})
AFTER = make_report({"food": (0.74, 0.43), "pets": (0.58, 0.3)})


@pytest.fixture
def options(tmp_path) -> dict:
    folder = tmp_path / "private" / "tiny-clip"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# A base model\n")
    config = PMGAFTConfig(
        output_dir=str(tmp_path / "private" / "robust-clip"), eps="4/255", num_steps=3, hub_token=TOKEN, use_cpu=True
    )
    return {
        "base_model": str(folder),
        "objective": make_objective("pmg_aft", {"alpha": 2.5}),
        "tuning": make_tuning("vision_tower"),
        "config": config,
        "report_before": BEFORE,
        "report_after": AFTER,
    }


def run_usage(folder, monkeypatch) -> list[dict]:
    """Runs the code of a folder's card beside the folder, as a reader would; returns what each block left."""
    monkeypatch.chdir(folder.parent)
    draw(0, np.random.default_rng(0)).save("image.png")
    blocks = (folder / "README.md").read_text().split("```python\n")[1:]
    left = []
    for block in blocks:
        left.append({})
        exec(compile(block.split("```")[0], "README.md", "exec"), left[-1])
    return left


def test_metadata_reads_back_and_its_figures_are_the_reports(options, tmp_path):
    save_model_card(tmp_path, **options)
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "transformers" and data.pipeline_tag == "zero-shot-image-classification"
    assert data.license == "cc-by-4.0" and data.model_name == "robust-clip"
    assert {"hf-pmgaft", "adversarial-robustness", "pmg_aft"} <= set(data.tags)
    figures = {(result.dataset_name, result.metric_type): result for result in data.eval_results}
    assert len(figures) == len(data.eval_results) == 6
    for new in AFTER.sets:
        assert figures[new.name, "clean_accuracy"].metric_value == pytest.approx(100 * new.clean_accuracy)
        assert figures[new.name, "robust_accuracy"].metric_value == pytest.approx(100 * new.robust_accuracy)
    assert figures["mean of sets", "clean_accuracy"].metric_value == pytest.approx(66)
    assert figures["mean of sets", "robust_accuracy"].metric_value == pytest.approx(36.5)
    robust = [result for result in data.eval_results if result.metric_type == "robust_accuracy"]
    assert all("PGD-20 margin linf 4/255" in result.metric_name for result in robust)


def test_table_holds_both_reports_with_the_images_of_each_set(options):
    table = rows(model_card(**options))
    assert table["food"] == ["150", "81.0", "74.0", "1.0", "43.0", "35.3 to 51.0"]
    assert table["pets"][:5] == ["150", "63.0", "58.0", "2.0", "30.0"]
    assert table["mean of sets"][1:5] == ["72.0", "66.0", "1.5", "36.5"]


def test_sets_are_paired_by_name(options):
    before = RobustnessReport(BEFORE.protocol, BEFORE.sets[::-1])
    assert rows(model_card(**{**options, "report_before": before}))["food"][1:3] == ["81.0", "74.0"]


def test_attack_protocol_and_training_are_told(options):
    text = model_card(**options).text
    assert "PGD-20 margin linf 4/255 (attack=pgd, eps=4/255, norm=linf, num_steps=20, loss=margin" in text
    assert AFTER.protocol_hash in text and "another protocol" not in text
    table = rows(model_card(**options))
    assert "eps=4/255, norm=linf, num_steps=3" in table["threat model of training"][0]
    assert "loss=ce" in table["threat model of training"][0]
    assert "alpha=2.5" in table["objective options"][0]
    assert "arXiv 2401.04350" in text and "Equation:" in text
    assert "upper bound until a stronger attack fails to lower it" in text


def test_another_precision_of_the_attack_is_told(options):
    assert "precision" not in rows(model_card(**options))["threat model of training"][0]
    options["config"].attack_precision = "bf16"
    assert "precision=bf16" in rows(model_card(**options))["threat model of training"][0]


def test_gradients_in_bf16_are_told_beside_the_verdict(options):
    assert "Verdict: last iterate.\n" in model_card(**options).text
    report = replace(AFTER, protocol={**AFTER.protocol, "attack_precision": "bf16"})
    text = model_card(**{**options, "report_before": None, "report_after": report}).text
    assert "Verdict: last iterate; gradients of the attacks in bf16.\n" in text


def test_figures_of_another_protocol_are_not_compared(options):
    before = make_report({"food": (0.81, 0.01), "pets": (0.63, 0.02)}, seed=1)
    assert before.protocol_hash != AFTER.protocol_hash
    text = model_card(**{**options, "report_before": before}).text
    assert f"another protocol (`{before.protocol_hash}`)" in text


def test_neither_token_nor_path_is_in_the_card(options, tmp_path):
    dataset = tmp_path / "private" / "pictures"
    gone = tmp_path / "private" / "gone"
    for changes in ({"dataset_name": f"{dataset}:all@train"}, {"base_model": str(gone)}, {"dataset_name": str(gone)}):
        card = model_card(**{**options, **changes}, plots=[str(tmp_path / "private" / "robustness.png")])
        content = str(card)
        assert TOKEN not in content and str(tmp_path) not in content and "private" not in content
        assert "![robustness](robustness.png)" in content
        assert ("`pictures`" in content) == ("pictures" in changes.get("dataset_name", ""))


@pytest.mark.parametrize(
    "base_model, written",
    [
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("/scratch/someone/clip", None),
        ("../models/clip", None),
        ("a CLIPModel", None),
    ],
)
def test_base_model_is_a_name_that_the_hub_takes(options, base_model, written):
    assert model_card(**{**options, "base_model": base_model}).data.base_model == written


def test_a_folder_is_no_base_model_on_the_hub_but_named_in_the_text(options):
    card = model_card(**options)
    assert card.data.base_model is None and "base_model_relation" not in card.data.to_dict()
    assert "from\n`tiny-clip`" in card.text


def test_licence_is_the_given_one_or_that_of_the_base_models_card(options, tmp_path):
    assert model_card(**options, licence="mit").data.license == "mit"
    (tmp_path / "private" / "tiny-clip" / "README.md").write_text("# No metadata\n")
    assert model_card(**options).data.license is None


def test_usage_names_the_checkpoint(options):
    options["config"].hub_model_id = "someone/robust-clip"
    text = model_card(**options).text
    assert 'CLIPModel.from_pretrained("someone/robust-clip")' in text
    assert 'pipeline("zero-shot-image-classification", model="someone/robust-clip")' in text
    for code in text.split("```python\n")[1:]:
        compile(code.split("```")[0], "card", "exec")


def test_card_of_a_defended_model_says_that_the_worst_attacker_counts(options):
    after = make_report({"food": (0.74, 0.43), "pets": (0.58, 0.3)})
    after.protocol["defence"] = {"defence": "random_noise", "eps": "8/255", "draws": 9, "eot": 4}
    attacks = [AttackSpec.of(entry) for entry in after.protocol["attacks"]]
    after.protocol["attacks"] = [spec.by(attacker).to_dict() for spec in attacks for attacker in ATTACKERS]
    after.protocol["headline"] = attacks[0].threat
    for result in after.sets:
        result.threats = {attacks[0].threat: result.robust_accuracy}
    text = model_card(**{**options, "report_after": after}).text
    assert (
        "- Defended at test time by random noise (eps=8/255). Robust is, per image, the worst of all attackers" in text
    )
    assert "- The defence draws at random: verdicts are majorities of 9 draws" in text
    assert "Defended at test time" not in model_card(**options).text
    after.protocol["defence"] = {"defence": "one_of_another_version"}
    assert "Defended at test time by one_of_another_version." in model_card(**{**options, "report_after": after}).text


def test_card_without_reports_says_so(options):
    card = model_card(**{**options, "report_before": None, "report_after": None})
    assert "not evaluated" in card.text and not card.data.eval_results
    assert rows(model_card(**{**options, "report_before": None}))["food"][1:3] == ["", "74.0"]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_a_card_without_gaps(options, name):
    objective = make_objective(name)
    card = model_card(**{**options, "objective": objective})
    assert name in card.data.tags and "$" not in card.text
    threat = rows(card)["threat model of training"][0]
    assert threat.startswith("attack=pgd") == objective.uses_attack
    assert ("loss=the objective's" in threat) == (objective.uses_attack and objective.steers_attack)


def test_card_of_an_objective_of_ones_own(options):
    @dataclass
    class Mine(Objective):
        """Mine: costs $5 a step."""

        strength: float = 1.0

    card = model_card(**{**options, "objective": Mine()})
    assert "Mine" in card.data.tags and "costs $5 a step" in card.text
    assert rows(card)["objective options"] == ["strength=1.0"]


def test_an_adapter_is_not_called_a_plain_model_and_the_usage_holds(options, tmp_path):
    base = tmp_path / "private" / "tiny-clip"
    make_model().save_pretrained(base)
    adapted = get_peft_model(CLIPModel.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    make_processor().save_pretrained(tmp_path / "adapter")
    card = save_model_card(tmp_path / "adapter", **{**options, "base_model": "openai/clip-vit-base-patch32"})
    assert "LORA adapter" in card.text and "plain `CLIPModel`" not in card.text
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert 'load_model("robust-clip")' in card.text and "CLIPModel.from_pretrained" not in card.text
    loaded = load_model(str(tmp_path / "adapter"))
    assert isinstance(loaded, PeftModel) and any("lora_" in name for name in loaded.state_dict())
    assert "a plain `CLIPModel`" in save_model_card(tmp_path, **options).text


NAMES = ["cat", "dog"]  # which the code of a card classifies by


def processor_of_cards():
    return make_pair_for(NAMES)[1]


@pytest.fixture
def base(options):
    """The base model in its folder."""
    model, _ = make_pair_for(NAMES)
    model.save_pretrained(options["base_model"])
    model.name_or_path = options["base_model"]
    return model


def test_usage_of_a_plain_checkpoint_runs(options, base, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "robust-clip"
    base.save_pretrained(folder)
    processor_of_cards().save_pretrained(folder)
    save_model_card(folder, **options)
    by_pipeline, by_model = run_usage(folder, monkeypatch)
    assert isinstance(by_model["model"], CLIPModel)
    answer, probabilities = capsys.readouterr().out.splitlines()
    assert "'cat'" in answer and "'dog'" in answer and probabilities.startswith("tensor([[")


def test_usage_of_an_adapter_runs(options, base, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "robust-clip"
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    processor_of_cards().save_pretrained(folder)
    data = save_model_card(folder, **options).data
    (by_package,) = run_usage(folder, monkeypatch)
    assert isinstance(by_package["model"], PeftModel)
    assert capsys.readouterr().out.strip() in ("cat", "dog") and data.library_name == "peft"


@pytest.mark.parametrize(
    "tuning, tuning_options, names",
    [
        ("deep_prompts", {"depth": 1}, ["cat", "dog"]),
        ("text_context", {"num_tokens": 4}, ["cat", "dog"]),
        ("text_context", {"num_tokens": 4, "class_specific": True}, CLASS_NAMES),
        ("r_adapter", {}, ["cat", "dog"]),
    ],
)
def test_usage_of_other_tunings_runs(options, base, tmp_path, monkeypatch, capsys, tuning, tuning_options, names):
    folder = tmp_path / "robust-clip"
    prepared = make_tuning(tuning, tuning_options).for_classes(CLASS_NAMES).prepare(base)
    save_tuning(prepared, folder, options["base_model"])
    processor_of_cards().save_pretrained(folder)
    card = save_model_card(folder, **options)
    (left,) = run_usage(folder, monkeypatch)
    assert left["names"] == names and capsys.readouterr().out.strip() in names
    assert f"the tuning `{tuning}`" in card.text and card.data.library_name == "hf_pmgaft"


@pytest.mark.parametrize("name", sorted(set(DUAL) & set(BACKBONES)))
def test_usage_of_every_family_runs_and_gives_its_own_scores(options, tmp_path, monkeypatch, capsys, name):
    model, processor, folder = make(name), processor_of_cards(), tmp_path / "robust-clip"
    if name == "SiglipModel":  # as published, which the pipeline counts on
        model.config.text_config.max_position_embeddings = 64
        model = type(model)(model.config).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    card = save_model_card(folder, **options, model_class=name)

    by_model = run_usage(folder, monkeypatch)[-1]

    assert type(by_model["model"]) is type(model) and f"a plain `{name}`" in card.text
    assert ("pipeline(" in card.text) == (name not in ("Aimv2Model", "VisionTextDualEncoderModel"))
    classifier = ZeroShotClassifier.from_model(
        model, processor, encode_class_names(model, processor, ["cat", "dog"], "a {}")
    )
    logits = classifier.logits(classifier.encode_image(by_model["inputs"]["pixel_values"]))
    scores = logits.sigmoid() if name == "SiglipModel" else logits.softmax(-1)
    assert str(scores.detach()) in capsys.readouterr().out


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapter"])
@pytest.mark.parametrize("name", sorted(ENCODER))
def test_usage_of_an_encoder_without_text_runs_and_gives_its_embeddings(
    options, tmp_path, monkeypatch, capsys, name, adapted
):
    folder, model = tmp_path / "robust-clip", make(name)
    model.save_pretrained(tmp_path / "base")
    model.name_or_path = str(tmp_path / "base")
    model = make_tuning("peft", {"r": 2, "init_lora_weights": False}).prepare(model).eval() if adapted else model
    model.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    by_head = RobustnessReport({**AFTER.protocol, "head": {"name": "NearestClassMean"}}, AFTER.sets)
    changes = {"report_before": None, "report_after": by_head, "model_class": name}
    card = save_model_card(folder, **{**options, **changes})

    (left,) = run_usage(folder, monkeypatch)

    expected = get_encoder(model).image_embeds(model, left["pixel_values"]).detach()
    printed = re.search(r"tensor\((.+?)\)", capsys.readouterr().out, re.DOTALL)
    assert torch.allclose(torch.tensor(json.loads(printed[1])), expected, atol=1e-3)  # four digits are shown
    assert "ero-shot" not in str(card) and "CLIPModel" not in str(card)
    assert (f"a plain `{name}`" in card.text) != adapted
    assert card.data.pipeline_tag == "image-feature-extraction" and ("clip" in card.data.tags) == ("CLIP" in name)
    assert {result.task_type for result in card.data.eval_results} == {"image-classification"}
    assert all(result.metric_args["head"] == "NearestClassMean" for result in card.data.eval_results)


@pytest.mark.parametrize("base_model", [None, "openai/clip-vit-base-patch32"])
def test_the_hub_knows_every_key_of_the_metadata(options, tmp_path, base_model):
    changes = {"base_model": base_model, "dataset_name": "user/pictures:small@train", "licence": "mit"}
    save_model_card(tmp_path, **{**options, **(changes if base_model else {})})
    metadata = metadata_load(tmp_path / "README.md")
    assert unknown_keys(metadata, CARD_KEYS) == []
    assert metadata.get("base_model") == base_model and ("datasets" in metadata) == (base_model is not None)
    assert base_model is None or metadata["datasets"] == ["user/pictures"]
    metadata["licence"] = metadata["model-index"][0]["results"][0]["metrics"][0]["unit"] = "x"
    assert unknown_keys(metadata, CARD_KEYS) == ["licence", "metrics.unit"]


def test_the_data_are_told(options):
    data = training_examples(make_images(8), processor_of_cards())
    card = model_card(**options, dataset_name="user/pictures", train_dataset=data)
    assert rows(card)["data"] == ["`user/pictures`, 8 images, 4 classes"]
    assert rows(model_card(**options))["data"] == ["not named"]


def test_papers_are_links(options):
    assert "[arXiv 2401.04350](https://arxiv.org/abs/2401.04350)" in model_card(**options).text


def test_a_licence_of_its_own_keeps_name_and_link(options, tmp_path, monkeypatch):
    readme = tmp_path / "base.md"
    readme.write_text("---\nlicense: other\nlicense_name: theirs\nlicense_link: LICENSE\n---\n")
    monkeypatch.setattr("hf_pmgaft.hub.card.hf_hub_download", lambda repo, file: str(readme))
    data = model_card(**{**options, "base_model": "user/clip"}).data
    assert (data.license, data.license_name) == ("other", "theirs")
    assert data.license_link == "https://huggingface.co/user/clip/blob/main/LICENSE"


def test_a_base_model_out_of_reach_leaves_the_licence_open(options):
    assert model_card(**{**options, "base_model": "user/clip"}).data.license is None


def test_figures_stand_under_the_headline_and_flags_are_told(options):
    beside = {"attack": "patch", "size": 16}
    flag = {"flag": "zero gradients", "set": "food", "message": "the gradient is zero"}
    protocol = {"attacks": [PGD, beside], "headline": "linf 4/255", "verdict": "any iterate"}
    after = RobustnessReport(protocol, AFTER.sets, flags=[flag])
    card = model_card(**{**options, "report_before": None, "report_after": after})
    assert "PGD-20 margin linf 4/255" in card.text and "PATCH" not in card.text
    assert "zero gradients (food): the gradient is zero" in card.text
    names = {result.metric_name for result in card.data.eval_results}
    assert names == {"Clean accuracy (%)", "Robust accuracy (%) under PGD-20 margin linf 4/255"}
    text = model_card(**options).text
    assert "Do not believe" not in text and "No flag was raised" in text


def test_each_of_several_attacks_is_told(options):
    names = ("PGD-20 margin linf 4/255", "APGD-CE linf 4/255")
    sets = [SetResult("food", 10, 150, 0.74, 0.43, dict(zip(names, (0.5, 0.43), strict=True)))]
    card = model_card(**{**options, "report_before": None, "report_after": RobustnessReport(AFTER.protocol, sets)})
    assert [rows(card)[name] for name in names] == [["1", "50.0"], ["1", "43.0"]]


def test_sums_over_the_batch_and_other_options_are_told_beside_the_equation(options):
    assert "sums over the batch" not in model_card(**{**options, "objective": make_objective("pmg_aft")}).text
    assert "default options" not in model_card(**{**options, "objective": make_objective("pmg_aft")}).text
    options["objective"] = make_objective("pmg_aft", {"kl_reduction": "sum", "scale": 1.0})
    text = model_card(**options).text
    assert "Here `clean_kl` and `teacher_kl` are sums over the batch, not means." in text
    assert "default options. This run has `kl_reduction=sum`, `scale=1.0`." in text


def test_pixel_statistics_before_that_are_not_those_of_training_are_told(options):
    own = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    theirs = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    before, after = (
        RobustnessReport(report.protocol, report.sets, statistics)
        for report, statistics in ((BEFORE, own), (AFTER, theirs))
    )
    card = model_card(**{**options, "report_before": before, "report_after": after, "training": theirs})
    assert (
        "before are of the model as it came, with mean 0.4815, 0.4578, 0.4082; standard deviation 0.2686" in card.text
    )
    assert rows(card)["pixel statistics"] == ["mean 0.485, 0.456, 0.406; standard deviation 0.229, 0.224, 0.225"]
    assert "as it came, with" not in model_card(**{**options, "report_before": after, "report_after": after}).text


def test_names_prompts_batch_and_suite_are_told(options):
    texts = Texts(make_processor(), CLASS_NAMES, ["a photo of the {}"])
    record = training_record(options["config"], texts, training_examples(make_images(), make_processor()), 4)
    after = RobustnessReport(AFTER.protocol, AFTER.sets, provenance={"suite": "paper16"})
    card = model_card(**{**options, "training": record, "report_after": after})
    table = rows(card)
    digest = record["class_names"]["digest"]
    assert table["class names"] == [f"4: `red disc`, `green disc`, `blue square`, ... (digest `{digest}`)"]
    assert table["prompts"] == ["4 learned tokens and the name; without them `a photo of the {}`"]
    assert table["batch"] == ["8 = 8 x 1 x 1 (a device, accumulated, devices)"]
    assert "Suite: `paper16`, 2 sets." in card.text
