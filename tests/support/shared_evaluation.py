"""Evaluations that several processes share: of classes under both verdicts, and of captions, one after the other."""

import contextlib
import copy
import json
import time
from collections import Counter
from pathlib import Path

import torch

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.data import RetrievalDataset
from hf_pmgaft.distributed import process_share
from hf_pmgaft.evaluation import certify_sets, evaluate_robustness, transfer_matrix
from hf_pmgaft.evaluation.verdicts import PIXELS, Verdicts
from support.sets import make_large
from support.tiny import make_images, make_model, make_processor

SIZE = 21
PGD = {"attack": "pgd", "eps": "20/255", "num_steps": 5, "loss": "ce"}
APGD_T = {"attack": "apgd_t", "eps": "20/255", "num_steps": 5, "num_targets": 3}
SQUARE = {"attack": "square", "eps": "20/255", "num_queries": 20}
WORD = {"attack": "typographic", "height": 0.5, "words": 2, "places": 2}
KINDS = {
    "any iterate": {"attacks": [PGD, APGD_T, SQUARE], "eight_bit": True, "verdict": "any_iterate"},
    "last iterate": {"attacks": [PGD, APGD_T, SQUARE], "verdict": "last_iterate"},
    "words": {"attacks": [PGD, WORD, {**WORD, "letters": "random"}]},
    "captions": {"attacks": [PGD, {**PGD, "loss": "margin"}], "eight_bit": True},
}

RANDOM = "random defence"
OF_RANDOM = {"attacks": [PGD, APGD_T], "defence": "random_noise,eps=30/255", "eot": 2, "draws": 3}
MADE_BEFORE = "made before"  # on another model, and for all images at once
OF_MADE_BEFORE = {"attacks": [{**PGD, "source": "other"}]}
CERTIFIED, MATRIX = "certified", "matrix"


def make_set(kind: str, processor) -> ZeroShotDataset | RetrievalDataset:
    if kind == "words":
        return make_large(processor, SIZE)
    images = make_images(SIZE, seed=9)
    if kind != "captions":
        return ZeroShotDataset(images, processor, None, "a photo of the {}", name="own")
    names = images.features["label"].names
    captions = [f"a {names[label]}, the image {row}" for row, label in enumerate(images["label"])]
    return RetrievalDataset(images.remove_columns("label").add_column("caption", captions), processor, name="own")


def evaluate(folder: Path, workers: int = 0, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
    """Writes a report of each kind, by each process, beside the files of verdicts."""
    torch.set_num_threads(1)
    model, processor = make_model(), make_processor()
    model.load_state_dict(torch.load(folder.parent / "fitted.pt", weights_only=True))
    for kind in kinds:
        options = {
            "batch_size": 4,
            "num_workers": workers,
            "progress": False,
            "verdict_file": folder / f"{kind}.jsonl",
        }
        if kind == MADE_BEFORE:
            options["sources"] = {"other": (make_other(model), processor)}
            noise = f"universal,eps=40/255,file={folder.parent / 'noise.safetensors'}"
            options["attacks"] = [*OF_MADE_BEFORE["attacks"], noise]
        else:
            options.update(OF_RANDOM if kind == RANDOM else KINDS[kind])
        report = evaluate_robustness(model, processor, [make_set(kind, processor)], **options)
        (folder / f"{kind}-{process_share()[0]}.json").write_text(json.dumps(report.to_dict()))


def make_other(model: torch.nn.Module) -> torch.nn.Module:
    """A model near another one, on which images are made."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.vision_model.parameters():
            parameter += 0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return other


def measure_further(folder: Path) -> None:
    """Images made before, certificates of two lists, and a transfer matrix; a report of each by each process."""
    evaluate(folder, kinds=(MADE_BEFORE,))
    model, processor = make_model(), make_processor()
    model.load_state_dict(torch.load(folder.parent / "fitted.pt", weights_only=True))
    lists = [
        ZeroShotDataset(make_images(SIZE, seed=9), processor, None, text, name=text)
        for text in ("a photo of the {}", "{}")
    ]
    options = {"progress": False, "batch_size": 4}

    certified = certify_sets(
        model,
        processor,
        lists,
        sigma=0.4,
        draws=50,
        selection=10,
        attacks=["fgsm,attacker=through"],
        radii=[0.2],
        verdict_draws=5,
        verdict_file=folder / f"{CERTIFIED}.jsonl",
        **options,
    )
    models = {"fitted": (model, processor), "other": (make_other(model), processor)}
    matrix = transfer_matrix(models, lists[:1], [PGD], verdict_file=folder / f"{MATRIX}.jsonl", **options)
    for name, report in ((CERTIFIED, certified), (MATRIX, matrix)):
        (folder / f"{name}-{process_share()[0]}.json").write_text(json.dumps(report.to_dict()))


def evaluate_broken(folder: Path) -> None:
    """Evaluates a set one of whose images cannot be read."""
    read = ZeroShotDataset.__getitem__

    def read_or_fail(data, row):
        if row == 13:
            raise OSError("row 13 is broken")
        return read(data, row)

    ZeroShotDataset.__getitem__ = read_or_fail  # in a process of its own
    evaluate(folder, kinds=("any iterate",))


def evaluate_slowly(folder: Path, seconds: float) -> None:
    """One process takes so long for its last lot, while nothing is left for the others."""
    add, calls = Verdicts.add, []

    def add_slowly(verdicts, *args):
        if process_share()[0] == 1 and not calls:
            calls.append(args)
            time.sleep(seconds)
        add(verdicts, *args)

    Verdicts.add = add_slowly  # in a process of its own
    evaluate(folder, kinds=("any iterate",))


def evaluate_again_after_an_error(folder: Path) -> None:
    """The first process meets an error in the middle, catches it and evaluates again, which others do not know."""
    add, calls = Verdicts.add, []

    def add_or_fail(verdicts, *args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError("the disk is gone for a moment")
        add(verdicts, *args)

    if process_share()[0] == 0:
        Verdicts.add = add_or_fail  # in a process of its own
        with contextlib.suppress(OSError):
            evaluate(folder, kinds=("any iterate",))
        assert len(calls) == 3
    evaluate(folder, kinds=("any iterate",))


def reports(folder: Path, kind: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"{kind}-*.json"))]


def lines(folder: Path, kind: str = "*") -> list[dict]:
    """All whole lines of the files of verdicts, but their headers."""
    files = sorted(folder.glob(f"{kind}.jsonl*"))
    written = [line for file in files for line in file.read_text().split("\n")[:-1]]
    return [line for line in map(json.loads, written) if "rows" in line]


def judged(folder: Path, kind: str) -> dict[str, Counter]:
    """How often each row has a verdict, by key."""
    counts: dict[str, Counter] = {}
    for line in lines(folder, kind):
        counts.setdefault(line["attack"], Counter()).update(line["rows"])
    return counts


def goes_before(key: str) -> bool:
    """Whether a verdict follows such a line, so that who is killed in between writes it again."""
    return key == PIXELS or key.endswith((" embeds", " 8 bit", " written"))
