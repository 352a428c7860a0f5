"""Retrieval: recall clean and under attack, against plain transcriptions and a model whose optimum is known."""

import json
import math
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from support.emoji import CE, EMOJI, PGD, make_data, make_emoji
from support.launch import torchrun
from support.tiny import CLASS_NAMES, SIZE, fit_model, make_images, make_model, make_processor

from hf_pmgaft import (
    AttackSpec,
    NearestClassMean,
    RetrievalDataset,
    RobustnessReport,
    ZeroShotDataset,
    compare_reports,
    evaluate_robustness,
)
from hf_pmgaft.data import load_images
from hf_pmgaft.evaluation import evaluate, ranks
from hf_pmgaft.evaluation.gallery import Gallery
from hf_pmgaft.evaluation.judge import Judge
from hf_pmgaft.evaluation.plan import Plan
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.evaluation.retrieval import judge_retrieval, judged_retrieval
from hf_pmgaft.evaluation.verdicts import Verdicts
from hf_pmgaft.models.processors import pixel_statistics
from hf_pmgaft.prompts import prompt_name
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.zero_shot import ZeroShotClassifier

FIGURES = [f"{way} R@{k}" for way in ("I2T", "T2I") for k in (1, 5, 10)]


def run(emoji, data=None, attacks=(PGD,), **options) -> RobustnessReport:
    data = make_data(emoji[1]) if data is None else data
    return evaluate_robustness(*emoji, [data], list(attacks), **{"progress": False, "probes": False, **options})


def recalls(report: RobustnessReport, key: str = "clean_accuracy") -> dict[str, float]:
    return {result.figure.title: getattr(result, key) for result in report.sets}


def captions_of(images, row: int) -> list[str]:
    return [prompt_name(images.features["label"].int2str(images[row]["label"])), *images[row]["tags"]]


# ---- Right numbers ----


def test_recall_without_attack_is_that_of_a_plain_transcription(emoji):
    model, processor = emoji
    images = load_images(str(EMOJI / "data"), "activities", "test")
    own = [set(captions_of(images, row)) for row in range(len(images))]
    texts = sorted(set.union(*own))
    inputs = processor(text=texts, images=list(images["image"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    similarity = output.image_embeds @ output.text_embeds.T
    expected = {}
    for k in (1, 5, 10):
        found = [{texts[i] for i in row.topk(k).indices} & own[n] for n, row in enumerate(similarity)]
        expected[f"I2T R@{k}"] = sum(map(bool, found)) / len(images)
        found = [any(texts[m] in own[i] for i in column.topk(k).indices) for m, column in enumerate(similarity.T)]
        expected[f"T2I R@{k}"] = sum(found) / len(texts)
    report = run(emoji, make_data(processor, None), [{"attack": "fgsm", "eps": 0}])
    assert recalls(report) == expected == recalls(report, "robust_accuracy")
    assert expected["I2T R@1"] < expected["I2T R@5"] < 1 and expected["T2I R@1"] < expected["T2I R@10"] < 1
    assert [(r.num_classes, r.num_samples) for r in report.sets] == [(len(texts), 85)] * 3 + [(85, len(texts))] * 3


def recalls_of(classifier, data, spec: AttackSpec, texts: torch.Tensor) -> tuple[dict, dict]:
    """Recalls of any classifier, clean and under one attack, by the embeddings of its captions."""
    plan, verdicts = Plan.of(data, [spec]), Verdicts(None, {})
    judge = Judge(verdicts, any_iterate=True, eight_bit=False, batch_size=8, seed=0, progress=False)
    with torch.no_grad():
        judge_retrieval(judge, classifier, plan, Reader(plan.labelled))
    rows = judged_retrieval(plan, verdicts, spec.threat, any_iterate=True, eight_bit=False, texts=texts)
    clean = {row.figure.title: sum(row.clean) / len(row.ids) for row in rows}
    return clean, {row.figure.title: sum(row.masks[spec.name]) / len(row.ids) for row in rows}


LEVELS = 6 * (np.arange(15) - 7)  # grey levels by which the images of the closed form differ along one direction


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacked_recall_of_a_model_with_a_closed_form_optimum_is_right(norm):
    """The angle of an embedding is `w x`, which a ball moves by at most `eps |w|`, of the dual norm."""
    signs = np.random.default_rng(0).choice([-1, 1], (SIZE, SIZE, 3))
    pictures = [Image.fromarray((128 + level * signs).astype(np.uint8)) for level in LEVELS]
    table = {"image": pictures, "caption": [f"the caption {i}" for i in range(len(LEVELS))]}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    processor = make_processor()
    data = RetrievalDataset(datasets.Dataset.from_dict(table, features=features), processor, name="own")
    weight = torch.tensor(signs, dtype=torch.float32).permute(2, 0, 1).flatten() / signs.size * 255 / 60

    def place(images):  # 0 at the middle image; 0.1 from one image to the next
        return (images.flatten(1) - 128 / 255) @ weight

    def encode(pixel_values):
        u = place(classifier.std * pixel_values + classifier.mean)
        return torch.stack([u.cos(), u.sin()], dim=1)

    clean = place(torch.stack([data[row]["images"] for row in range(len(LEVELS))]))
    captions = clean - 0.0003  # a little beside the images, so that no two are equally far
    texts = torch.stack([captions.cos(), captions.sin()], dim=1)
    images = processor.image_processor
    classifier = ZeroShotClassifier(encode, texts, 10.0, images.image_mean, images.image_std, SIZE)
    for levels in (10, 31):
        eps = levels / 255 if norm == "linf" else levels / 255 * math.sqrt(signs.size)
        attack = {"attack": "pgd", "eps": eps, "norm": norm, "num_steps": 10, "loss": "margin", "restarts": 12}
        clean_recalls, robust_recalls = recalls_of(classifier, data, AttackSpec.of(attack), texts)
        ends = torch.stack([clean - levels / 60, clean + levels / 60])
        away = (ends.unsqueeze(2) - captions).abs()  # of each end from each caption
        own = away.diagonal(dim1=1, dim2=2)
        image_ranks = (away <= own.unsqueeze(2)).sum(2).amax(0)
        wrong = away.masked_fill(torch.eye(len(LEVELS), dtype=torch.bool), 9).amin(2)
        chosen = ends.gather(0, (wrong.cos() - own.cos()).argmax(0, keepdim=True))[0]  # where the margin is largest
        away = (captions.unsqueeze(1) - chosen).abs()
        caption_ranks = torch.maximum((away <= away.diagonal().unsqueeze(1)).sum(1), torch.ones(len(LEVELS)))
        for k in (1, 5, 10):
            assert robust_recalls[f"I2T R@{k}"] == (image_ranks <= k).double().mean().item(), (levels, k)
            assert robust_recalls[f"T2I R@{k}"] == (caption_ranks <= k).double().mean().item(), (levels, k)
        assert clean_recalls == dict.fromkeys(FIGURES, 1.0)
        assert image_ranks.min() > 1 and (levels == 10 or 5 < image_ranks.min() <= 10 < image_ranks.max())


def test_text_to_image_recall_is_of_the_images_that_the_attack_returned_and_each_is_made_once(emoji, attacked):
    data = make_data(emoji[1])
    report = run(emoji, data, [CE], batch_size=24)
    (returned,) = attacked
    assert len(set(returned.seeds.tolist())) == len(returned.adversarial) == 24
    gallery = Gallery(data, range(24), 0)
    model, processor = emoji
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in pixel_statistics(processor))
    pixels = (returned.adversarial - mean) / std
    with torch.no_grad():
        output = model(pixel_values=pixels, **processor(text=gallery.captions, padding=True, return_tensors="pt"))
    order = (output.text_embeds @ output.image_embeds.T).argsort(1, descending=True).tolist()
    clean = {result.figure.title: result.verdicts["clean"] for result in report.sets}
    for k in (1, 5, 10):
        hits = [bool(set(order[m][:k]) & set(own)) for m, own in enumerate(gallery.images_of_captions())]
        hits = [hit and bool(right) for hit, right in zip(hits, clean[f"T2I R@{k}"], strict=True)]
        assert recalls(report, "robust_accuracy")[f"T2I R@{k}"] == sum(hits) / len(hits)


def test_recall_falls_with_the_radius_and_grows_with_k(emoji):
    jpeg = {"attack": "corruption", "kind": "jpeg", "severity": 3}
    report = run(emoji, attacks=[PGD, CE, {**CE, "eps": "2/255"}, jpeg])
    assert [figure.title for figure in report.figures] == FIGURES
    clean, robust = recalls(report), recalls(report, "robust_accuracy")
    for way in ("I2T", "T2I"):
        for values in (clean, robust):
            assert values[f"{way} R@1"] < values[f"{way} R@5"] <= values[f"{way} R@10"]
        assert robust[f"{way} R@1"] < clean[f"{way} R@1"] - 0.2
    for result in report.sets:
        assert result.clean_accuracy >= result.threats["linf 2/255"] >= result.threats["linf 4/255"]
        assert result.robust_accuracy == min(result.attacks[AttackSpec.of(spec).name] for spec in (PGD, CE))
        assert result.threats["jpeg 3"] > result.robust_accuracy


def test_the_last_iterate_is_never_below_any_iterate(emoji):
    lost = 0
    for num_steps in (3, 4, 5):  # walks leave what they found, after some of these steps whatever the round-off
        wild = {**PGD, "eps": "3/255", "step_size": "40/255", "num_steps": num_steps}
        worst, last = (run(emoji, attacks=[wild], verdict=verdict) for verdict in ("any_iterate", "last_iterate"))
        for figure in FIGURES:
            assert recalls(worst, "robust_accuracy")[figure] <= recalls(last, "robust_accuracy")[figure]
        worst, last = (report.sets[0].verdicts[AttackSpec.of(wild).name] for report in (worst, last))
        assert all(a <= b for a, b in zip(worst, last, strict=True))
        lost += sum(last) - sum(worst)
    assert lost > 0


def test_images_rounded_to_8_bits_are_judged_on_request(emoji):
    fine, coarse = (run(emoji, attacks=[{**CE, "eps": eps}], eight_bit=True) for eps in (0.9 / 255, "4/255"))
    for result in fine.sets:  # a ball that holds no other grey level leaves nothing once rounded
        assert result.robust_8bit_accuracy == result.clean_accuracy
    assert recalls(fine, "robust_accuracy")["I2T R@1"] < recalls(fine)["I2T R@1"]
    assert recalls(coarse, "robust_8bit_accuracy")["I2T R@1"] < recalls(coarse)["I2T R@1"] - 0.2
    assert run(emoji).sets[0].robust_8bit_accuracy is None


# ---- Targets ----


def test_images_are_pulled_to_a_caption_that_is_not_their_own(emoji):
    data = make_data(emoji[1], target="drawn")
    attack = {**CE, "num_steps": 10, "eps": "16/255"}
    report = run(emoji, data, [attack, {**attack, "eps": "1/255"}])
    assert [figure.title for figure in report.figures] == ["target@1", "target@5", "target@10"]
    kept, strong = recalls(report), recalls(report, "robust_accuracy")
    assert kept["target@1"] > 0.9 > 0.5 > strong["target@1"] < report.sets[0].threats["linf 1/255"]
    for values in (kept, strong):
        assert values["target@1"] >= values["target@5"] >= values["target@10"]
    assert report.protocol["sets"]["own"]["retrieval"]["target"] == "drawn"
    last = run(emoji, data, [attack], verdict="last_iterate")
    assert strong["target@1"] <= recalls(last, "robust_accuracy")["target@1"]


def test_all_images_but_its_own_are_pulled_to_a_chosen_caption(emoji):
    images = load_images(str(EMOJI / "data"), "activities", "test")
    own = [row for row in range(24) if "celebration" in captions_of(images, row)]
    report = run(emoji, make_data(emoji[1], target="celebration"), [{**CE, "eps": "16/255", "num_steps": 10}])
    assert report.sets[0].verdicts["sample_id"] == [row for row in range(24) if row not in own] and own
    assert report.sets[0].robust_accuracy < report.sets[0].clean_accuracy
    assert report.protocol["sets"]["own"]["num_samples"] == 24 - len(own)
    assert report.protocol["sets"]["own"]["retrieval"]["num_images"] == 24


def test_who_keeps_a_target_out_is_that_of_a_plain_transcription(emoji):
    model, processor = emoji
    images = load_images(str(EMOJI / "data"), "activities", "test").select(range(24))
    texts = sorted({text for row in range(24) for text in captions_of(images, row)})
    inputs = processor(text=texts, images=list(images["image"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    order = (output.image_embeds @ output.text_embeds.T).argsort(1, descending=True)
    for target in ("celebration", "sport"):
        report = run(emoji, make_data(processor, target=target), [{"attack": "fgsm", "eps": 0}])
        place = (order == texts.index(target)).int().argmax(1)  # from 0
        for result, k in zip(report.sets, (1, 5, 10), strict=True):
            rows = result.verdicts["sample_id"]
            assert result.verdicts["clean"] == result.verdicts["robust"] == [int(place[row] >= k) for row in rows]
    assert 0 < result.clean_accuracy < 1


# ---- Nothing lost, nothing in the way ----


def test_verdicts_do_not_depend_on_the_batch_size(emoji):
    reports = [run(emoji, attacks=[PGD, CE], batch_size=size).to_dict() for size in (5, 24)]
    assert reports[0] == reports[1]


def test_a_gallery_of_some_images_is_the_report_of_those_rows(emoji):
    data = make_data(emoji[1], None)
    part = run(emoji, data, max_samples=20, seed=3)
    rows = part.sets[0].verdicts["sample_id"]
    again = run(emoji, make_data(emoji[1], None), max_samples=20, seed=3)
    assert len(rows) == 20 and part.to_dict() == again.to_dict()
    assert part.sets[0].num_classes == len({text for row in rows for text in captions_of(data.dataset, row)})


def test_a_file_cut_off_anywhere_is_gone_on_with(emoji, tmp_path, attacked):
    file = tmp_path / "verdicts.jsonl"
    options = {"attacks": [CE], "batch_size": 8, "verdict_file": file, "eight_bit": True}
    whole = run(emoji, **options).to_dict()
    content = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 1 + 3 * 3 + 3 * 4
    for cut in (ends[0] - 3, ends[1], ends[2], *ends[10:13], ends[-1] - 2):  # between each two kinds of lines
        file.write_bytes(content[:cut])
        assert run(emoji, **options).to_dict() == whole
    attacked.clear()
    again = file.read_bytes()
    assert run(emoji, **options).to_dict() == whole and file.read_bytes() == again
    assert attacked == []


def test_a_file_with_other_captions_of_the_same_images_is_refused(emoji, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    images = load_images(str(EMOJI / "data"), "activities", "test").select(range(14))
    tags = images["tags"]
    run(emoji, RetrievalDataset(images, emoji[1], "tags", name="own"), verdict_file=file)
    for changed, message in (
        ([*tags[:-1], ["another"]], "differs in protocol.sets.own"),
        ([*tags[:-2], [*tags[-2], tags[0][1]], tags[-1]], "differs in protocol.sets.own.retrieval.num_pairs"),
        ([tags[0], [tags[0][1], *tags[1][1:]], *tags[2:]], "other images or labels of 'own'"),
    ):
        other = images.remove_columns("tags").add_column("tags", changed)
        with pytest.raises(ValueError, match=message):
            run(emoji, RetrievalDataset(other, emoji[1], "tags", name="own"), verdict_file=file)


def run_shared(file: Path) -> dict:
    emoji = make_emoji()
    return run(emoji, make_data(emoji[1], 21), [PGD, CE], batch_size=4, verdict_file=file).to_dict()


def test_two_processes_report_what_one_reports(tmp_path):
    torchrun(2, __file__, tmp_path)
    one = json.loads(json.dumps(run_shared(tmp_path / "alone.jsonl")))
    assert [json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in (0, 1)] == [one, one]
    # What two processes left behind, one goes on with.
    second = tmp_path / "verdicts.jsonl-1"
    second.write_text("".join(second.read_text().splitlines(keepends=True)[:-3]))
    assert json.loads(json.dumps(run_shared(tmp_path / "verdicts.jsonl"))) == one


def test_texts_are_encoded_once_and_no_whole_similarity_matrix_is_made(emoji, monkeypatch):
    encoded, sizes, rank, tokenizer = [], [], ranks.own_ranks, type(emoji[1].tokenizer)
    tokenize = tokenizer.__call__

    def count(self, texts, **options):
        encoded.append(len(texts))
        return tokenize(self, texts, **options)

    def measure(similarity, own):
        sizes.append(similarity.numel())
        return rank(similarity, own)

    monkeypatch.setattr(tokenizer, "__call__", count)
    whole = run(emoji, batch_size=6).to_dict()
    monkeypatch.setattr(ranks, "SIMILARITIES_AT_ONCE", 200)
    monkeypatch.setattr(ranks, "own_ranks", measure)
    assert run(emoji, batch_size=1).to_dict() == whole
    captions = whole["sets"][0]["num_classes"]
    assert encoded == [captions, captions] and max(sizes) <= 200 < 24 * captions


def test_captions_of_the_same_tokens_tie_however_their_batches_round(monkeypatch):
    plain = evaluate.encode_prompts
    shift = torch.linspace(0, 1e-4, 12)[:, None]
    monkeypatch.setattr(evaluate, "encode_prompts", lambda *args: plain(*args) + shift)
    captions = [f"a red {name}" for name in "bcdefghijklm"]  # whose last words are all unknown
    data = RetrievalDataset(captioned(captions), make_processor(), name="own")
    report = run((make_model(), make_processor()), data)
    assert recalls(report)["I2T R@10"] == 0


# ---- What cannot be ----


def captioned(captions: list) -> datasets.Dataset:
    return make_images(len(captions)).remove_columns("label").add_column("caption", captions)


MANY = [f"a red disc {i}" for i in range(12)]


@pytest.mark.parametrize(
    ("captions", "options", "message"),
    [
        (MANY, {"caption_column": "text"}, "no caption column 'text'"),
        (MANY, {"caption_column": ""}, "no caption_column for 'own'"),
        ([*MANY[:-1], " "], {}, "Row 11 of 'own' has no caption"),
        (MANY[:10], {}, "'own' has 10 images and 10 different captions.*more than 10"),
        (["a red disc"] * 12, {}, "12 images and 1 different captions"),
        (MANY, {"sample_ids": []}, "Pass at least one"),
        (MANY, {"target": "a green disc"}, "no caption of the gallery of 'own'"),
    ],
)
def test_sets_that_cannot_be_retrieved_are_refused_before_any_work(tmp_path, monkeypatch, captions, options, message):
    model = make_model()
    monkeypatch.setattr(model, "forward", lambda *args, **options: pytest.fail("work was done"))
    monkeypatch.setattr(RetrievalDataset, "__getitem__", lambda *args: pytest.fail("an image was read"))
    file = tmp_path / "verdicts.jsonl"
    with pytest.raises(ValueError, match=message):
        processor = make_processor()
        data = RetrievalDataset(captioned(captions), processor, **{"caption_column": "auto", "name": "own", **options})
        run((model, processor), data, verdict_file=file)
    assert not file.exists()


def test_sets_without_captions_or_rows_are_refused():
    processor = make_processor()
    with pytest.raises(ValueError, match="none of the usual caption columns"):
        RetrievalDataset(make_images(12), processor)
    with pytest.raises(ValueError, match="no rows"):
        RetrievalDataset(captioned(MANY).select([]), processor)
    with pytest.raises(ValueError, match="is a stream"):
        RetrievalDataset(captioned(MANY).to_iterable_dataset(), processor)


@pytest.mark.parametrize(
    ("attack", "target", "message"),
    [
        ({"attack": "cw", "eps": "1/255", "norm": "linf"}, None, "You passed CW.*Pass one of corruption, fgsm, pgd"),
        ({**PGD, "loss": "dlr"}, None, "PGD-3 dlr.*loss ce or margin"),
        ({"attack": "corruption", "kind": "jpeg", "severity": 1}, "drawn", "to a target. Pass one of fgsm, pgd"),
    ],
)
def test_attacks_that_end_at_the_first_wrong_answer_are_refused(emoji, attack, target, message):
    with pytest.raises(ValueError, match=message):
        run(emoji, make_data(emoji[1], target=target), [attack])


def test_a_head_has_no_place_for_captions(emoji):
    support = ZeroShotDataset(make_images(12), make_processor(), name="own")
    with pytest.raises(ValueError, match="head with 'own'"):
        run(emoji, head=NearestClassMean(support))


@pytest.mark.parametrize(("tuning", "options"), [("text_context", {"num_tokens": 2}), ("deep_prompts", {"depth": 1})])
def test_a_model_that_learned_prompts_of_class_names_takes_no_captions(tuning, options):
    model = make_tuning(tuning, options).for_classes(CLASS_NAMES).prepare(make_model())
    with pytest.raises(ValueError, match="learned prompts for class names, which have no place in captions"):
        run((model, make_processor()), RetrievalDataset(captioned(MANY), make_processor(), name="own"))


# ---- Reports ----


@pytest.fixture(scope="module")
def both():
    """A report of a classified set and a retrieved one, of a tiny model."""
    model, processor = fit_model()
    images = make_images(16, seed=9)
    captions = [[f"a photo of the {CLASS_NAMES[label]}", f"image {i}"] for i, label in enumerate(images["label"])]
    classified = ZeroShotDataset(images, processor, None, "a photo of the {}", name="shapes")
    retrieved = RetrievalDataset(images.add_column("caption", captions), processor, name="shapes captions")
    attacks = [{**PGD, "eps": "20/255"}, {**PGD, "eps": "10/255"}]
    return evaluate_robustness(model, processor, [classified, retrieved], attacks, progress=False)


def test_accuracies_and_recalls_stand_in_one_report_and_have_no_mean_of_both(both, tmp_path):
    first, *others = both.sets
    assert first.name == "shapes" and [r.name for r in others] == [f"shapes captions {f}" for f in FIGURES]
    assert both.mean_clean_accuracy == first.clean_accuracy and both.measure == "Zero-shot accuracy and recall"
    header, *rows = both.rows()
    assert header[1:3] == ["classes", "images"] and [row[0] for row in rows][-1] == "mean of sets"
    assert both.metrics()["eval_mean_robust_accuracy"] == first.robust_accuracy
    assert both.metrics()["eval_shapes_captions_T2I_R5_clean_recall"] == others[4].clean_accuracy
    comparison = compare_reports(both, both)
    assert list(comparison.sets) == [result.name for result in both.sets]
    assert {"clean", "robust", "I2T R@1 clean", "T2I R@10 robust"} < set(comparison.means)
    both.save(tmp_path / "robustness.json")
    loaded = RobustnessReport.load(tmp_path / "robustness.json")
    assert loaded.sets == both.sets and loaded.protocol_hash == both.protocol_hash
    protocol = loaded.protocol["sets"]["shapes captions"]["retrieval"]
    assert (
        protocol["recall_at"] == [1, 5, 10]
        and protocol["num_pairs"] == 32
        and list(protocol["threats"]) == ["I2T", "T2I"]
    )
    assert "retrieval" not in loaded.protocol["sets"]["shapes"]


if __name__ == "__main__":
    PartialState(cpu=True)
    report = run_shared(Path(sys.argv[1]) / "verdicts.jsonl")
    (Path(sys.argv[1]) / f"report-{os.environ['RANK']}.json").write_text(json.dumps(report))
    torch.distributed.barrier()
    os._exit(0)


def test_who_misses_on_the_clean_image_misses_after_rounding_under_any_iterate(emoji):
    noise = {**PGD, "eps": "16/255", "num_steps": 1, "step_size": 0.0}
    worst, last = (
        recalls(run(emoji, attacks=[noise], verdict=verdict, eight_bit=True), "robust_8bit_accuracy")
        for verdict in ("any_iterate", "last_iterate")
    )
    assert all(worst[figure] <= last[figure] for figure in FIGURES) and worst != last
