"""The same verdicts in several ways, with what each of them took."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from hf_pmgaft.attacks import correct, uniform_noise
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.zero_shot import ZeroShotClassifier

from .evaluation_case import EvaluationCase

# Ways to judge under each attack.
LOOPS = ("plain loop", "loop, text cached")
RUNNERS = ("pyautoattack's runner", "original AutoAttack")
WAYS = {"pgd": ("ours", *LOOPS), "fast": ("ours", *RUNNERS), "standard": ("ours", *RUNNERS)}
# The attacks of AutoAttack's versions, as its runners call them.
COMPONENTS = {"fast": ["apgd-ce", "apgd-t"], "standard": ["apgd-ce", "apgd-t", "fab-t", "square"]}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LARGEST = 32 / 255  # radius that is tried
HALVINGS = 12


class Counter:
    """Passes through the image encoder and the images in them, and when the last one ended.

    Args:
        clock (`Callable`): Tells the time.
        batch_size (`int`): Places of the batches whose fill counts; an attack is tried on a single image before.

    Attributes:
        waiting_passes (`int`, *optional*), waiting_images (`int`): Of them, those while images or walks waited for a
            place; `None` of code that does not tell.
    """

    def __init__(self, clock: Callable[[], float], batch_size: int):
        self.clock = clock
        self.batch_size = batch_size
        self.passes = 0
        self.images = 0
        self.waiting_passes: int | None = None
        self.waiting_images = 0
        self.end = self.clock()

    def count(self, images: int) -> None:
        """Counts a pass that has ended."""
        self.passes += 1
        self.images += images
        self.end = self.clock()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Counts the passes of every `ZeroShotClassifier`, and what full batches tell of theirs."""
        embed = ZeroShotClassifier.embed

        def counted_embed(classifier: ZeroShotClassifier, images: torch.Tensor) -> torch.Tensor:
            embeds = embed(classifier, images)
            self.count(len(images))
            return embeds

        ZeroShotClassifier.embed = counted_embed
        try:
            with self._watching_usage():
                yield
        finally:
            ZeroShotClassifier.embed = embed

    @contextlib.contextmanager
    def _watching_usage(self) -> Iterator[None]:
        try:
            usage = importlib.import_module("hf_pmgaft.attacks.full_batches").Usage
        except ImportError:  # in a checkout from before there were any
            yield
            return

        count = usage.count
        self.waiting_passes = 0

        def counted(used: Any, images: int, waiting: bool) -> None:
            count(used, images, waiting)
            if waiting and used.size == self.batch_size:
                self.waiting_passes += 1
                self.waiting_images += images

        usage.count = counted
        try:
            yield
        finally:
            usage.count = count


class Ways:
    """Judges the images of a case.

    Args:
        case (`dict`): That of [`EvaluationCase`], with `batch_size`, `num_steps` of PGD, `apgd_steps` of AutoAttack's
            attacks with gradients, `queries` of Square, and `clock`, one of `CLOCKS`.
        device (`torch.device`): Where it is computed.
    """

    def __init__(self, case: dict[str, Any], device: torch.device):
        self.case = EvaluationCase(case, device)
        self.options = case
        self.device = device
        self.clock = CLOCKS[case["clock"]]
        self.counter = Counter(self.clock, case["batch_size"])

    def radius(self, level: float) -> float:
        """The radius at which so large a share of the images withstands PGD, by bisection."""
        low, high = 0.0, LARGEST
        for _ in range(HALVINGS):
            eps = (low + high) / 2
            standing = sum(self.ours("pgd", eps)) / len(self.case.labels)
            if abs(standing - level) * len(self.case.labels) < 1:
                break
            if standing > level:
                low = eps
            else:
                high = eps
        return eps

    def measure(self, way: str, attack: str, eps: float) -> dict[str, Any]:
        """Judges the images in a way: verdicts, seconds, passes. `missing` says why there are none."""
        self.counter = Counter(self.clock, self.options["batch_size"])
        start = self.clock()
        try:
            with self.counter.watching():
                verdicts = self.judge(way, attack, eps)
            synchronize(self.device)
        except ModuleNotFoundError as error:
            return {"missing": f"{error.name} is not installed"}
        except torch.cuda.OutOfMemoryError:
            return {"missing": "out of memory"}
        return {
            "seconds": self.clock() - start,
            "busy": self.counter.end - start,
            "passes": self.counter.passes,
            "images": self.counter.images,
            "waiting_passes": self.counter.waiting_passes,
            "waiting_images": self.counter.waiting_images,
            "verdicts": verdicts,
        }

    def judge(self, way: str, attack: str, eps: float) -> list[int]:
        """Verdicts by a way: 1 of images that stand."""
        if way == "ours":
            return self.ours(attack, eps)
        if way in LOOPS:
            return self.loop(self.encode_each_time if way == "plain loop" else self.case.classifier, eps)
        return self.runner(way, attack, eps)

    # ---- Ours ----

    def ours(self, attack: str, eps: float) -> list[int]:
        """By `evaluate_robustness`."""
        steps = {"num_steps": self.options["apgd_steps"]}
        pgd = [{"attack": "pgd", "num_steps": self.options["num_steps"], "loss": "ce"}]
        fast = [{"attack": "apgd", **steps}, {"attack": "apgd_t", **steps}]
        rest = [{"attack": "fab_t", **steps}, {"attack": "square", "num_queries": self.options["queries"]}]
        attacks = {"pgd": pgd, "fast": fast, "standard": fast + rest}[attack]
        report = evaluate_robustness(
            self.case.model,
            self.case.processor,
            [self.case.data],
            [{"eps": eps, **options} for options in attacks],
            batch_size=self.options["batch_size"],
            probes=False,
            progress=False,
        )
        return report.sets[0].verdicts["robust"]

    # ---- The loop, as commonly written ----

    def encode_each_time(self, images: torch.Tensor) -> torch.Tensor:
        """Logits by the model's own forward, which encodes the prompts too."""
        pixels = self.case.classifier.pixel_values(images)
        logits = self.case.model(pixel_values=pixels, **self.case.prompts).logits_per_image
        self.counter.count(len(images))
        return logits

    def loop(self, classify: Callable[[torch.Tensor], torch.Tensor], eps: float) -> list[int]:
        """Verdicts by PGD on every image to its last step. An image is fooled if any step was misclassified."""
        verdicts: list[int] = []
        num_steps, batch_size = self.options["num_steps"], self.options["batch_size"]
        step = 2.5 * eps / num_steps
        for start in range(0, len(self.case.labels), batch_size):
            batch = slice(start, start + batch_size)
            images, labels = self.case.images[batch], self.case.labels[batch]
            with torch.no_grad():
                robust = correct(classify(images), labels)

            noise = (2 * uniform_noise(self.case.seeds[batch], images.shape[1:]) - 1) * eps
            points = (images + noise).clamp(0, 1)
            for _ in range(num_steps):
                points = points.detach().requires_grad_()
                logits = classify(points)
                robust &= correct(logits.detach(), labels)
                F.cross_entropy(logits, labels, reduction="sum").backward()
                delta = (points.detach() + step * points.grad.sign() - images).clamp(-eps, eps)
                points = (images + delta).clamp(0, 1)

            with torch.no_grad():
                robust &= correct(classify(points), labels)
            self.case.model.zero_grad(set_to_none=True)
            verdicts += robust.int().tolist()
        return verdicts

    # ---- AutoAttack's own runners ----

    def runner(self, way: str, attack: str, eps: float) -> list[int]:
        """Verdicts by the runner of a library, whose noise is its own."""
        images, labels = self.case.images, self.case.labels
        if way == "original AutoAttack":
            original = importlib.import_module("autoattack").AutoAttack
            runner = original(
                self.case.classifier,
                norm="Linf",
                eps=eps,
                seed=0,
                verbose=False,
                attacks_to_run=COMPONENTS[attack],
                version="custom",
                device=str(self.device),
            )
        else:
            port = importlib.import_module("pyautoattack").AutoAttack
            runner = port(
                self.case.classifier,
                eps=eps,
                seed=0,
                attacks=COMPONENTS[attack],
                version="custom",
                device=self.device,
            )

        # What the version `standard` sets, and this run's steps
        for gradient_attack in (runner.apgd, runner.apgd_targeted, runner.fab):
            gradient_attack.n_restarts = 1
            gradient_attack.n_iter = self.options["apgd_steps"]
        for targeted in (runner.apgd_targeted, runner.fab):
            targeted.n_target_classes = min(9, len(self.case.data.class_names) - 1)
        runner.square.n_queries = self.options["queries"]

        found = runner.run_standard_evaluation(images, labels, **self._size_of_batches(way))
        adversarial = found[0] if isinstance(found, tuple) else found
        with torch.no_grad():
            batches = adversarial.to(self.device).split(self.options["batch_size"])
            logits = torch.cat([self.case.classifier(batch) for batch in batches])
        return correct(logits, labels).int().tolist()

    def _size_of_batches(self, way: str) -> dict[str, int]:
        name = "bs" if way == "original AutoAttack" else "batch_size"
        return {name: self.options["batch_size"]}


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
