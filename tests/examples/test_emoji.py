"""The embedded default in examples/emoji is complete, consistent, licensed, and as good as its card says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import load_dataset
from support.paths import EMOJI
from transformers import CLIPModel, CLIPProcessor

from hf_pmgaft.suites import load_suite

FEW = ("train", "validation", "test")
GROUPS = ["smileys", "animals", "food", "travel", "activities", "objects", "symbols", "flags"]
FEATURES = ["image", "label", "emoji", "style", "tags"]
STYLES = yaml.safe_load((EMOJI / "make" / "styles.yaml").read_text())["styles"]
SPLITS = {"noto_v1": "validation", "twemoji": "test"}
SHIFT = {name.replace("-", "_"): name for name, style in STYLES.items() if style["role"] == "shift"}


def front_matter(card: Path) -> dict:
    return yaml.safe_load(card.read_text().split("---\n")[1])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("datasets"))
    configs = {
        name: load_dataset(str(EMOJI / "data"), name, cache_dir=cache)
        for name in ["finetune", *GROUPS, "shift", "few_shots"]
    }
    return {(name, split): rows for name, splits in configs.items() for split, rows in splits.items()}


@pytest.fixture(scope="module")
def model():
    return CLIPModel.from_pretrained(EMOJI / "model")


@pytest.fixture(scope="module")
def processor():
    return CLIPProcessor.from_pretrained(EMOJI / "model")


def test_sets_have_the_documented_splits_and_features(sets):
    expected = {("finetune", "train")} | {(group, split) for group in GROUPS for split in ("test", "validation")}

    assert set(sets) == expected | {("shift", split) for split in SHIFT} | {("few_shots", split) for split in FEW}
    for (config, _), rows in sets.items():
        assert rows.column_names == [*FEATURES, *(["seen"] if config == "few_shots" else [])]
    assert all(len(rows) > 0 for rows in sets.values())


@pytest.mark.parametrize("group", GROUPS)
def test_class_names_are_unique_lower_case_and_the_same_in_both_splits(sets, group):
    names = sets[group, "test"].features["label"].names

    assert sets[group, "validation"].features["label"].names == names
    assert len(set(names)) == len(names)
    assert all(name == name.lower().strip() for name in names)


def test_the_test_split_shows_every_class_once(sets):
    for group in GROUPS:
        rows = sets[group, "test"]
        assert sorted(rows["label"]) == list(range(rows.features["label"].num_classes))


def test_finetune_set_has_the_classes_of_animals(sets):
    finetune = sets["finetune", "train"]

    assert finetune.features["label"].names == sets["animals", "test"].features["label"].names
    assert set(finetune["label"]) == set(range(finetune.features["label"].num_classes))


def test_images_are_rgb_of_48_pixels_with_something_drawn(sets):
    for rows in sets.values():
        for image in rows["image"]:
            assert image.mode == "RGB" and image.size == (48, 48)
            assert np.ptp(np.asarray(image)) > 0


def test_every_split_holds_only_styles_of_its_role(sets):
    for (config, split), rows in sets.items():
        if config == "few_shots":  # which has a test of its own
            continue
        assert {STYLES[style]["role"] for style in rows["style"]} == {"shift" if config == "shift" else split}
        assert config != "shift" or set(rows["style"]) == {SHIFT[split]}


def test_shift_sets_choose_from_the_names_of_all_groups(sets):
    names = [name for group in GROUPS for name in sets[group, "test"].features["label"].names]

    assert (EMOJI / "data/class_names.txt").read_text().splitlines() == names
    for split in SHIFT:
        rows = sets["shift", split]
        assert rows.features["label"].names == names
        assert len(set(rows["label"])) == len(rows) >= 100  # no emoji twice


def test_the_shift_suite_has_a_row_for_every_style_that_no_training_saw(sets, processor):
    suite = load_suite(EMOJI / "shift.yaml", processor)

    held_out = {name.replace("-", "_") for name, style in STYLES.items() if style["role"] in ("validation", "test")}
    assert {data.name for data in suite} == set(SHIFT) | held_out
    assert {len(data.class_names) for data in suite} == {1526}
    for data in suite:
        assert set(data.prompt_templates) == {"an emoji of {}"}
        # The suite's label stands for the name that the set itself gives the emoji, whatever group it comes from.
        parts = (
            [sets["shift", data.name]] if data.name in SHIFT else [sets[group, SPLITS[data.name]] for group in GROUPS]
        )
        given = [rows.features["label"].names[label] for rows in parts for label in rows["label"]]
        assert [data.class_names[label] for label in data.dataset["label"]] == given


def test_no_shift_drawing_is_a_copy_of_one_that_is_shipped_for_training(sets):
    """As `art.copies` has it; of the training styles only the animals of six are shipped."""
    finetune = sets["finetune", "train"]
    seen = {}
    for character, image in zip(finetune["emoji"], finetune["image"], strict=True):
        seen.setdefault(character, []).append(np.asarray(image, np.int16))
    compared = 0
    for split in SHIFT:
        for character, image in zip(sets["shift", split]["emoji"], sets["shift", split]["image"], strict=True):
            for other in seen.get(character, []):
                compared += 1
                assert np.abs(np.asarray(image, np.int16) - other).mean() >= 0.03 * 255
    assert compared > 1000


def test_few_shots_are_tested_in_styles_that_neither_pre_training_nor_their_training_has(sets):
    styles = {split: set(sets["few_shots", split]["style"]) for split in FEW}

    assert not styles["train"] & (styles["test"] | styles["validation"]) and not styles["test"] & styles["validation"]
    for split in FEW:
        rows = sets["few_shots", split]
        assert rows["seen"] == [STYLES[style]["role"] == "train" for style in rows["style"]]
        assert split == "train" or not any(rows["seen"])


def test_few_shots_have_sixteen_drawings_of_every_class_and_one_to_test(sets):
    counts = {split: np.bincount(sets["few_shots", split]["label"], minlength=40) for split in FEW}

    assert all(len(count) == 40 for count in counts.values())
    assert counts["train"].min() == 16 and counts["validation"].min() >= 1 and counts["test"].min() >= 3
    assert counts["test"].sum() <= 200


def test_no_few_shot_drawing_is_a_copy_of_another_one_of_its_emoji(sets):
    drawings = {}
    for split in FEW:
        for label, image in zip(sets["few_shots", split]["label"], sets["few_shots", split]["image"], strict=True):
            image = np.asarray(image, np.int16)
            others = drawings.setdefault(label, [])
            assert all(np.abs(image - other).mean() >= 0.03 * 255 for other in others)
            others.append(image)


def test_the_few_shot_set_takes_the_emoji_with_the_most_different_drawings(monkeypatch):
    import few_shots

    # Emoji 0 has five drawings, 1 has four of which two are alike, 2 has four and none to test.
    names = list(STYLES)
    styles = ["noto", "mdi", "ph", "noto-v1", "twemoji"]
    drawn = [(0, each) for each in styles] + [(1, each) for each in styles[1:]] + [(2, each) for each in styles[:4]]
    frames = np.random.default_rng(0).integers(0, 255, (len(drawn), 48, 48, 4), np.uint8)
    frames[..., 3] = 255
    frames[6] = frames[5]
    arrays = {
        "frames": frames,
        "emoji": np.array([emoji for emoji, _ in drawn]),
        "style": np.array([names.index(style) for _, style in drawn]),
    }
    monkeypatch.setattr(few_shots, "SHOTS", 1)

    few = few_shots.choose(arrays)

    assert few.emoji == [0, 1]
    assert few.rows == {"train": [0, 1, 2, 5], "validation": [3, 7], "test": [4, 8]}
    assert few.counted == {1: 3, 2: 3, 3: 3, 4: 2, 5: 1}


def test_no_drawing_of_the_held_out_styles_is_in_the_finetune_set(sets):
    finetune = {image.tobytes() for image in sets["finetune", "train"]["image"]}

    for split in ("test", "validation"):
        assert not finetune & {image.tobytes() for image in sets["animals", split]["image"]}


def test_a_copy_is_a_shift_drawing_close_to_a_training_drawing_of_the_same_emoji():
    import art

    names = list(STYLES)
    train, test, shift = (names.index(name) for name in ("noto", "twemoji", "lucide"))
    grey = np.full((48, 48, 4), 100, np.uint8)
    grey[..., 3] = 255
    frames = np.stack([grey, grey + [7, 7, 7, 0], grey + [9, 9, 9, 0], grey, grey]).astype(np.uint8)
    arrays = {
        "frames": frames,
        "style": np.array([train, shift, shift, shift, test]),
        "emoji": np.array([0, 0, 0, 1, 0]),
    }

    assert art.copies(arrays).tolist() == [False, True, False, False, False]


def test_every_style_is_attributed_under_a_shipped_licence():
    attribution = (EMOJI / "LICENSES/ATTRIBUTION.md").read_text()

    for name, style in STYLES.items():
        row = next(line for line in attribution.splitlines() if line.startswith(f"| {name} |"))
        assert all(part in row for part in (style["author"], style["license"], style["url"], style["version"]))
        assert len((EMOJI / f"LICENSES/{style['license']}.txt").read_text()) > 700


def test_no_style_asks_to_share_alike():
    permitted = {"Apache-2.0", "MIT", "ISC", "OFL-1.1", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0"}
    assert {style["license"] for style in STYLES.values()} <= permitted


def test_model_is_a_plain_clip_checkpoint_in_float32():
    model, report = CLIPModel.from_pretrained(EMOJI / "model", output_loading_info=True)

    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.projection_dim == model.config.text_config.projection_dim == 128
    assert model.config.vision_config.projection_dim == 128


def test_every_prompt_fits_the_text_tower_and_ends_once(sets, model, processor):
    prompts = [f"an emoji of {name}" for group in GROUPS for name in sets[group, "test"].features["label"].names]
    eos = model.config.text_config.eos_token_id

    encoded = processor.tokenizer(prompts).input_ids

    assert max(map(len, encoded)) <= model.config.text_config.max_position_embeddings
    assert all(ids.count(eos) == 1 and ids[-1] == eos for ids in encoded)


def test_accuracy_on_the_test_style_is_what_the_card_states(sets, model, processor):
    results = front_matter(EMOJI / "model/README.md")["model-index"][0]["results"]
    stated = {result["dataset"]["config"]: result["metrics"][0]["value"] for result in results}

    measured = {group: top1(model, processor, sets[group, "test"]) for group in GROUPS}

    assert np.mean(list(measured.values())) == pytest.approx(stated.pop("mean"), abs=0.5)
    assert measured == pytest.approx(stated, abs=2.0)


@torch.no_grad()
def top1(model, processor, rows) -> float:
    prompts = [f"an emoji of {name}" for name in rows.features["label"].names]
    inputs = processor(text=prompts, images=rows["image"][:], return_tensors="pt", padding=True)
    predicted = model(**inputs).logits_per_image.argmax(1)
    return 100 * (predicted == torch.tensor(rows["label"][:])).float().mean().item()


def test_shipped_files_are_plain_small_and_name_no_machine():
    files = [path for path in EMOJI.rglob("*") if path.is_file() and not {".build", "__pycache__"} & set(path.parts)]
    texts = [path for path in files if path.suffix in {".md", ".json", ".yaml", ".py", ".mjs"}]

    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".npz"}]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert not [path for path in texts if re.search(r"/(home|work|tmp|root)/", path.read_text())]
