"""The any-iterate verdict, and AutoAttack's, in several ways."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoProcessor

from hf_pmgaft.attacks import correct, sample_seeds, uniform_noise
from hf_pmgaft.data import ZeroShotDataset, load_images
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.evaluation.tables import render
from hf_pmgaft.prompts import prompt_name
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

from .common import EMOJI, write


class EvaluateBenchmark:
    """The same verdicts in several ways."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.processor = AutoProcessor.from_pretrained(args.model, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(args.model, dtype=torch.float32, trust_remote_code=False).eval()

        # Images
        images = load_images(str(EMOJI / "data"), args.group, "test")
        rows = list(range(min(args.images, len(images))))
        self.data = ZeroShotDataset(images.select(rows), self.processor, None, "an emoji of {}", args.group)
        examples = [self.data[row] for row in rows]
        self.images = torch.stack([example["images"] for example in examples])
        self.labels = torch.tensor([example["labels"] for example in examples])
        self.seeds = sample_seeds(0, 0, torch.tensor(rows))

        # Texts, encoded once and as prompts
        embeds = encode_class_names(self.model, self.processor, self.data.class_names, self.data.prompt_templates)
        self.classifier = ZeroShotClassifier.from_model(self.model, self.processor, embeds)
        prompts = [self.data.prompt_templates[0].format(prompt_name(name)) for name in self.data.class_names]
        self.prompts = self.processor.tokenizer(prompts, padding=True, return_tensors="pt")

        self.eps = self.find_eps()

    def find_eps(self) -> float:
        """The radius at which the share `--robust` of the images withstands PGD, by bisection."""
        low, high = 0.0, 32 / 255
        for _ in range(9):
            self.eps = (low + high) / 2
            if sum(self.ours()) > self.args.robust * len(self.labels):
                low = self.eps
            else:
                high = self.eps
        return self.eps

    def ours(self, *attacks: dict) -> list[int]:
        """`evaluate_robustness`, under PGD if nothing else is said."""
        pgd = {"attack": "pgd", "num_steps": self.args.num_steps, "loss": "ce"}
        report = evaluate_robustness(
            self.model,
            self.processor,
            [self.data],
            [{"eps": self.eps, **attack} for attack in attacks or (pgd,)],
            batch_size=self.args.batch_size,
            probes=False,
            progress=False,
        )
        return report.sets[0].verdicts["robust"]

    def encode_each_time(self, images: torch.Tensor) -> torch.Tensor:
        """Logits by the model's own forward, which encodes the prompts too."""
        pixels = (images - self.classifier.mean) / self.classifier.std
        return self.model(pixel_values=pixels, **self.prompts).logits_per_image

    def loop(self, classify: Callable[[torch.Tensor], torch.Tensor]) -> list[int]:
        """Verdicts by PGD on every image to its last step. An image is fooled if any step was misclassified."""
        verdicts: list[int] = []
        step = 2.5 * self.eps / self.args.num_steps
        for start in range(0, len(self.labels), self.args.batch_size):
            batch = slice(start, start + self.args.batch_size)
            images, labels = self.images[batch], self.labels[batch]
            with torch.no_grad():
                robust = correct(classify(images), labels)

            noise = (2 * uniform_noise(self.seeds[batch], images.shape[1:]) - 1) * self.eps
            points = (images + noise).clamp(0, 1)
            for _ in range(self.args.num_steps):
                points = points.detach().requires_grad_()
                logits = classify(points)
                robust &= correct(logits.detach(), labels)
                F.cross_entropy(logits, labels, reduction="sum").backward()
                delta = (points.detach() + step * points.grad.sign() - images).clamp(-self.eps, self.eps)
                points = (images + delta).clamp(0, 1)

            with torch.no_grad():
                robust &= correct(classify(points), labels)
            self.model.zero_grad(set_to_none=True)
            verdicts += robust.int().tolist()
        return verdicts

    def apgd(self) -> list[int]:
        """APGD-CE and APGD-T by `evaluate_robustness`."""
        steps = {"num_steps": self.args.apgd_steps}
        return self.ours({"attack": "apgd", **steps}, {"attack": "apgd_t", **steps})

    def pyautoattack(self) -> list[int]:
        """The same by the library's own runner."""
        from pyautoattack import AutoAttack
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        attacks = ["apgd-ce", "apgd-t"]
        runner = AutoAttack(self.classifier, eps=self.eps, attacks=attacks, version="custom", seed=0)
        options = {"n_iter": self.args.apgd_steps, "norm": "Linf", "eps": self.eps, "n_restarts": 1, "seed": 0}
        runner.apgd = APGDAttack(self.classifier, logger=runner.logger, **options)
        runner.apgd_targeted = APGDAttack_targeted(self.classifier, logger=runner.logger, **options)
        adversarial, _ = runner.run_standard_evaluation(self.images, self.labels, batch_size=self.args.batch_size)
        with torch.no_grad():
            return correct(self.classifier(adversarial), self.labels).int().tolist()


def run(args: argparse.Namespace) -> None:
    """Prints times, ratios and verdicts of the ways to evaluate."""
    bench = EvaluateBenchmark(args)
    ways = {
        "plain loop": lambda: bench.loop(bench.encode_each_time),
        "loop, text cached": lambda: bench.loop(bench.classifier),
        "evaluate_robustness": bench.ours,
        "pyautoattack's runner": bench.pyautoattack,
        "evaluate_robustness, APGD": bench.apgd,
    }

    # Ways in turn
    times: dict[str, list[float]] = {name: [] for name in ways}
    verdicts = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            verdicts[name] = way()
            times[name].append(time.perf_counter() - start)

    # Times and verdicts beside those of ours
    medians = {name: statistics.median(values) for name, values in times.items()}
    baselines = {
        "plain loop": "evaluate_robustness",
        "loop, text cached": "evaluate_robustness",
        "evaluate_robustness": "evaluate_robustness",
        "pyautoattack's runner": "evaluate_robustness, APGD",
        "evaluate_robustness, APGD": "evaluate_robustness, APGD",
    }
    rows = [["way", "median s", "times ours", "robust", "verdicts that differ"]]
    for name, median in medians.items():
        ours = baselines[name]
        differ = sum(a != b for a, b in zip(verdicts[name], verdicts[ours], strict=True))
        share = sum(verdicts[name]) / len(verdicts[name])
        rows.append([name, f"{median:.2f}", f"{median / medians[ours]:.1f}", f"{share:.1%}", str(differ)])

    print(render(rows))
    print(f"{len(bench.labels)} images, {len(bench.data.class_names)} classes, radius {255 * bench.eps:.2f}/255.")
    robust = {name: sum(values) / len(values) for name, values in verdicts.items()}
    write(args, eps=bench.eps, seconds=times, medians=medians, robust=robust)
