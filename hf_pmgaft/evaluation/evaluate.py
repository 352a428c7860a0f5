"""`evaluate_robustness`: zero-shot sets x attacks -> a report whose every number names its attack and protocol."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import EvaluationImages, RetrievalDataset
from ..defences import Defence
from ..defences.spec import DefenceSpec
from ..distributed import gather, process_share
from ..engines import check_unwrapped
from ..fingerprints import digest_of_list
from ..models.backbones import check_dual_encoder, check_encoder, get_encoder, unwrap_peft
from ..models.own_classes import check_own_pass
from ..models.precision import check_has_values, other_dtypes
from ..models.processors import check_image_size, pixel_statistics
from ..modes import frozen, full_precision, without_tf32
from ..noise import sample_seeds
from ..progress import announce, is_terminal
from ..registry import check_choice, check_count
from ..tuning.peft_adapter import check_takes_images
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.readout_spec import ReadoutSpec
from ..zero_shot.segmenter import Segmenter
from ..zero_shot.text import ClassPrompts, encode_prompts, first_alike
from .attack_precision import check_attack_precision, in_attack_precision
from .classification import judge_classification, judged_classification
from .compiled import CompiledEncoder, check_compile
from .defended import Defended, at_one_draw, check_defended
from .draw_rules import Rule
from .examples import Album
from .heads import Head
from .image_progress import WholeProgress
from .judge import Judge
from .majority import draw_figures, judge_random, judged_random
from .outcomes import Outcome, summed, worst_case
from .plan import Plan, describe_work
from .protocol import describe_model, make_protocol
from .reader import Reader
from .report import RobustnessReport, SetResult
from .retrieval import check_retrieval, judge_retrieval, judged_retrieval
from .sanity import PROBE_SIZE, Flag, noise_flag, probe, verdict_flags
from .segmentation import check_segmentation, describe_segmentation, judge_segmentation, judged_segmentation
from .transfer import check_transfer, open_sources
from .verdicts import CLEAN, PIXELS, VERDICTS, Judged, Verdicts
from .written import written_figures

DEFAULT_ATTACK = {"attack": "pgd", "eps": "1/255", "norm": "linf", "num_steps": 20, "loss": "margin"}


def evaluate_robustness(
    model: nn.Module,
    processor: Any,
    sets: Mapping[str, EvaluationImages] | Sequence[EvaluationImages],
    attacks: Sequence[AttackSpec | Mapping[str, Any] | str] = (DEFAULT_ATTACK,),
    *,
    verdict: str | None = None,
    eight_bit: bool = False,
    probes: bool = True,
    batch_size: int = 64,
    max_samples: int | None = None,
    seed: int = 0,
    verdict_file: str | os.PathLike | None = None,
    progress: bool = True,
    head: Head | None = None,
    num_workers: int = 0,
    attack_precision: str = "fp32",
    compile: str | None = None,
    readout: str = "sclip",
    defence: DefenceSpec | Mapping[str, Any] | str | None = None,
    defence_kwargs: Mapping[str, Any] | None = None,
    eot: int | None = None,
    draws: int | None = None,
    sources: Mapping[str, tuple[nn.Module, Any]] | None = None,
    examples: int = 0,
) -> RobustnessReport:
    """Clean and robust accuracy of zero-shot predictions, or of another head, recall of retrieval, or mean IoU of
    segmentation, in float32 and eval mode.

    Attacks of one threat (norm and radius) make one worst case per image. The threat of the first attack is the
    headline, `robust_accuracy`; all others are reported beside it. All randomness follows from the seed and the
    image's row, so that verdicts depend on neither batch size, order nor number of processes, which share the images.

    With a defence at test time each attack is one of three attackers: `unaware`, of the bare model; `through` the
    whole defence; and `straight_through`, past its backward pass. The worst of all three is the headline. The first
    runs to its end, and the defence judges where it ends.

    An attack with `source=MODEL`, a Hub id or folder, is a transfer attack: its images are made on that model, with
    its own class texts, statistics and resolution, to the end of the attack, and the model under test judges them
    there, behind its defence if it has one. Nothing of it is used in making them. Such a threat, as `linf 4/255 from
    MODEL`, is one of its own.

    Args:
        model (dual encoder, image encoder or PEFT model): On any device; left as it was.
        processor (`CLIPProcessor`): Its tokenizer makes the prompts, its statistics normalise the images.
        sets (`dict` or list of `ZeroShotDataset`): Each with its own class names and templates. Of a
            [`RetrievalDataset`] with its own captions the report has several rows, a recall each, and every image is
            attacked to the last step, since the gallery needs all of them. Of a [`SegmentationDataset`] it has two
            rows, mean IoU and pixel accuracy, under attacks of pixels such as `"sea,eps=4/255"`.
        attacks (list of `AttackSpec`, `dict` or `str`): Each with its own options, such as
            `{"attack": "pgd", "eps": "4/255", "num_steps": 50}` or `"pgd,eps=4/255,num_steps=50"`; see
            `hf_pmgaft.AttackSpec`.
        verdict (`str`, *optional*): `"any_iterate"`, the default: no image is attacked that is misclassified clean or
            was fooled before, which is faster and never kinder; or `"last_iterate"`: every attack on every image, as
            many papers do. Of a random defence `"majority"`, of fresh draws at the point that an attack comes to; of
            smoothing `"prediction"`, the class that it predicts there by them, or an abstention, which is wrong.
        eight_bit (`bool`): Also judge the adversarial images after rounding them to 8 bits.
        probes (`bool`): Look for masked gradients on a few images of each set; see `hf_pmgaft.evaluation.sanity`.
        batch_size (`int`): Images at once.
        max_samples (`int`, *optional*): Images per set, chosen by the seed; all if not given.
        seed (`int`): Of the attacks' noise and the choice of images.
        verdict_file (`str`, *optional*): Verdicts are appended to it as they come; the same call goes on from there.
        progress (`bool`): Whether to show progress bars.
        head (`Head`, *optional*): Classifies by images that it was given, such as [`NearestClassMean`], instead of by
            class names; it is fitted anew to the model and each set.
        num_workers (`int`): Processes that read images ahead of the device; 0 reads them in this one.
        readout (`str`): How segmentation compares pixels with names: one of `hf_pmgaft.models.readouts.READOUTS`,
            with options as in `"sclip,scale=65,window_stride=112"`.
        defence (`DefenceSpec`, `dict` or `str`, *optional*): A defence at test time, one of
            `hf_pmgaft.defences.DEFENCES`, such as `"random_noise,eps=4/255"`. An attack that names its `attacker` is
            that one alone.
        defence_kwargs (`dict`, *optional*): Options of a defence that is passed by its name.
        eot (`int`, *optional*): Over how many draws of a random defence a step of an attack is averaged; 4 if not
            given, unless the attack says so.
        draws (`int`, *optional*): By how many draws a random defence is judged; 5 if not given, of smoothing
            100. A tie is wrong.
        sources (`dict`, *optional*): By the name that attacks give as their `source`, a model with its processor, on
            the device of `model`, where it should not be loaded by that name.
        examples (`int`): How many images `report.examples` shows, clean and attacked; at least one of each set, unless
            it is 0. What a verdict file holds is not attacked again, and not shown.

    Raises:
        TypeError: if the model is DeepSpeed's engine, or has no text tower and no head is passed; if a source has
            none.
        OSError: if a source cannot be opened.
        ValueError: if an attack, a set or the verdict file cannot serve, before anything is computed; verdicts on
            other images when their set's turn comes.
        RuntimeError: if an attack returns what its threat does not allow.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, class_names, "a photo of the {}", name="food")
        >>> attacks = ["pgd,eps=4/255,num_steps=5", {"attack": "fgsm", "eps": "8/255"}]
        >>> report = evaluate_robustness(model, processor, [food], attacks, progress=False)
        >>> report.mean_robust_accuracy <= report.mean_clean_accuracy
        True
        >>> list(report.sets[0].attacks)
        ['PGD-5 ce linf 4/255', 'FGSM ce linf 8/255']
    """
    # Checks, before anything is computed
    _check_model(model, head)
    sets = list(sets.values()) if isinstance(sets, Mapping) else list(sets)
    attacks = [AttackSpec.of(value) for value in attacks]
    defended = Defended.of(defence, defence_kwargs, eot, draws)
    is_random = defended is not None and defended.is_random
    if verdict is None:
        verdict = defended.rule.verdict if is_random else "any_iterate"
    _check(sets, attacks, verdict)
    check_transfer(attacks, sets, sources)
    check_defended(defended, sets, attacks, verdict, attack_precision, compile)
    if defended is not None:
        defended.spec.check(model, processor, has_head=head is not None)
        attacks = defended.rows(attacks)
    check_count("batch_size", batch_size)
    check_count("num_workers", num_workers, least=0)
    check_count("examples", examples, least=0)
    check_attack_precision(attack_precision, attacks)
    pixel_statistics(processor)
    for data in sets:
        if not data.native_size:
            check_image_size(data.processor, get_encoder(model).image_size(unwrap_peft(model)))
        if isinstance(data, RetrievalDataset):
            check_retrieval(data, model, attacks, head)
    plans = [Plan.of(data, attacks, max_samples, seed) for data in sets]
    readout = ReadoutSpec.parse(readout)
    for plan in plans:
        if plan.is_segmented:
            check_segmentation(plan, model, readout, head, attack_precision, compile)
    check_compile(compile, next(model.parameters()).device, [spec for plan in plans for spec in plan.attacks])

    # In float32, whatever the weights are stored in
    if other_dtypes(model):
        model = copy.deepcopy(model).float()
    check_own_pass(model)
    classifiers = _Classifiers(model, processor, head, readout, defended)
    classifiers.check_texts(plans)

    # What images are made on, where that is another model: by its class texts, whatever judges
    opened = open_sources(attacks, sources, next(model.parameters()).device)
    on_sources = {name: _Classifiers(*pair, None, readout, None) for name, pair in opened.items()}
    for of_source in on_sources.values():
        of_source.check_texts(plans)

    # Protocol and model, which verdicts on file must be of
    protocol = make_protocol(model, plans, attacks, verdict, eight_bit, seed)
    for plan in plans:
        if plan.is_segmented:
            protocol["sets"][plan.name]["segmentation"] = describe_segmentation(plan, model, readout)
    if head is not None:
        protocol["head"] = head.describe(sets)
    if attack_precision != "fp32":  # so that the hashes of all others are those of older reports
        protocol["attack_precision"] = attack_precision
    if defended is not None:
        protocol["defence"] = defended.describe()
    if opened:
        protocol["sources"] = {name: _describe_source(*pair, plans) for name, pair in opened.items()}
    described = describe_model(model, processor)
    rank, _ = process_share()
    verdicts = Verdicts(verdict_file, {"protocol": protocol, "model": described}, rank)
    verdicts.exchange()  # since all must know what is left to do

    if progress and rank == 0:
        announce(f"{describe_work(plans, eight_bit, defended.draws if is_random else 1)}.")
        if compile is not None:
            announce("The image encoder is compiled at its first passes, which take a minute or more.")

    # Verdicts of this process, and then of all
    any_iterate = verdict == "any_iterate"
    judge = Judge(verdicts, any_iterate, eight_bit, batch_size, seed, progress and rank == 0)
    if examples:
        judge.album = Album(plans, attacks[0].threat, examples, seed)
    if judge.progress and not is_terminal():
        judge.whole = _whole_progress(plans, attacks[0].threat)
    probed: list[_Probed] = []
    with judge.company, closing(verdicts), without_tf32(), ExitStack() as stack:
        if judge.whole is not None:
            stack.callback(judge.whole.close)
        for each in (model, *(of_source.model for of_source in on_sources.values())):
            stack.enter_context(full_precision(each))
            stack.enter_context(frozen(each))
        if compile is not None:
            classifiers.encode_image = CompiledEncoder(model, compile, batch_size)
        classifiers.check_defence(plans)
        for plan in plans:
            with Reader(plan.labelled, num_workers) as reader:
                if plan.is_segmented:
                    segmenter = classifiers.segmenter(plan)
                    judge_segmentation(judge, segmenter, plan, reader)
                    if judge.album is not None:
                        judge.album.look(plan, segmenter)
                    continue
                classifier = in_attack_precision(classifiers.of(plan), attack_precision)
                seen = {
                    name: in_attack_precision(of_source.of(plan), attack_precision)
                    for name, of_source in on_sources.items()
                }
                _judge(judge, classifier, plan, reader, defended, seen)
                if judge.album is not None:
                    judge.album.look(plan, classifier)
                if probes and rank == 0:
                    probed.append(_probe(classifier, plan, reader, attacks[0], seed))
        judge.company.meet()
    verdicts.exchange()
    probed = gather(probed)

    # Figures
    headline = attacks[0].threat
    rule = defended.rule if is_random else None
    judged = {
        plan.name: _judged(plan, verdicts, headline, any_iterate, eight_bit, classifiers, rule) for plan in plans
    }
    results = {plan.name: [_result(row, plan, headline) for row in judged[plan.name]] for plan in plans}
    for plan in plans:
        digests = verdicts.of(plan.name, PIXELS)
        protocol["sets"][plan.name]["images"] = digest_of_list([digests[row] for row in plan.rows])
    rows = [result for of_set in results.values() for result in of_set]
    origins = {data.name: data.source for data in sets if data.source}
    provenance = {"sets": origins} if origins else {}
    report = RobustnessReport(protocol, rows, described, _flags(probed, results, plans), provenance)
    if judge.album is not None:
        report.examples = judge.album.choose(gather(judge.album.examples(plans, results)))
    return report


# ---- Checks ----


def _check_model(model: nn.Module, head: Head | None) -> None:
    """Raises `TypeError` for a model that cannot be attacked, or lacks the text tower that class names need."""
    check_unwrapped(model)
    check_has_values(model)
    check_takes_images(model)
    if head is None:
        check_dual_encoder(model)
    else:
        check_encoder(model)


def _check(sets: Sequence[EvaluationImages], attacks: Sequence[AttackSpec], verdict: str) -> None:
    if not sets:
        raise ValueError("You passed no evaluation sets. Pass at least one `ZeroShotDataset`.")
    if not attacks:
        raise ValueError("You passed no attacks, without which there is no robustness to measure. Pass at least one.")
    check_choice("verdict", verdict, VERDICTS)
    names = [data.name for data in sets]
    if len(set(names)) != len(names):
        raise ValueError(f"Two evaluation sets share a name: {names}. Give each its own.")


# ---- The model ----


def _describe_source(model: nn.Module, processor: Any, plans: Sequence[Plan]) -> dict[str, Any]:
    """A source in the protocol: what it is, at which size it sees images, and its prompts for each set."""
    return {
        **describe_model(model, processor),
        "image_size": get_encoder(model).image_size(unwrap_peft(model)),
        "prompt_templates": {plan.name: plan.data.prompt_templates for plan in plans},
    }


class _Classifiers:
    """Makes the classifier of each set. Texts that sets share are encoded once.

    Attributes:
        encode_image (`Callable`, *optional*): What encodes images in place of the model.
    """

    encode_image: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(
        self, model: nn.Module, processor: Any, head: Head | None, readout: ReadoutSpec, defended: Defended | None
    ):
        self.model = model
        self.processor = processor
        self.head = head
        self.readout = readout
        self.defended = defended
        self._embeds: dict[str, torch.Tensor] = {}
        self._prompts: dict[str, ClassPrompts] = {}

    def check_texts(self, plans: Sequence[Plan]) -> None:
        """Makes the prompts of all class names, of which some may not be told apart, before any image is judged."""
        if self.head is not None:
            return
        for plan in plans:
            if plan.gallery is None and not plan.is_segmented and _key(plan) not in self._prompts:
                names, templates = plan.data.class_names, plan.data.prompt_templates
                self._prompts[_key(plan)] = ClassPrompts.of(self.model, self.processor, names, templates)

    def check_defence(self, plans: Sequence[Plan]) -> None:
        """Puts the defence behind the texts of each set, some of which it may refuse, before any image is judged."""
        if self.defended is not None and self.head is None:
            for plan in plans:
                if plan.gallery is None:
                    self.of(plan)

    def of(self, plan: Plan) -> ZeroShotClassifier | Defence:
        """The classifier of a set, by its class names or captions, or by the head, with its defence."""
        classifier = self._bare(plan)
        if self.defended is None:
            return classifier
        has_names = self.head is None and plan.gallery is None
        return self.defended.spec.wrap(
            classifier,
            self.model,
            self.processor,
            plan.data.class_names if has_names else None,
            plan.data.prompt_templates if self.head is None else None,
        )

    def _bare(self, plan: Plan) -> ZeroShotClassifier:
        if self.head is not None:
            classifier = self.head.fit(self.model, self.processor, plan.data)
        else:
            classifier = ZeroShotClassifier.from_model(self.model, self.processor, self.text_embeds(plan))
        if self.encode_image is None:
            return classifier
        return classifier.replace(encode_image=self.encode_image)

    def segmenter(self, plan: Plan) -> Segmenter:
        """The segmenter of a set, by the names of its classes."""
        return self.readout.segmenter(self.model, self.processor, plan.data)

    def text_embeds(self, plan: Plan) -> torch.Tensor:
        """Embeddings of a set's class names or captions, `[K,D]`."""
        key = _key(plan)
        if key in self._embeds:
            return self._embeds[key]

        if plan.gallery is None:
            embeds = encode_prompts(self.model, self._prompts[key])
        else:
            prompts = ClassPrompts.of_captions(self.model, self.processor, plan.texts, plan.data.prompt_templates)
            embeds = encode_prompts(self.model, prompts)
            # What batches round differently must tie where the tokens are the same.
            embeds = embeds[first_alike(prompts.input_ids, prompts.attention_mask, prompts.num_templates)]
        self._embeds[key] = embeds
        return embeds


def _key(plan: Plan) -> str:
    """Tells the texts of a set from those of others."""
    kind = "classes" if plan.gallery is None else "captions"
    return digest_of_list([plan.texts, plan.data.prompt_templates, kind])


# ---- The task of a set ----


def _whole_progress(plans: Sequence[Plan], headline: str) -> WholeProgress:
    """The bar of all sets and attacks."""
    images = {plan.name: len(plan.rows) for plan in plans}
    total = sum(len(plan.rows) * (1 + len(plan.attacks)) for plan in plans)
    return WholeProgress(images, total, {plan.name: plan.leading_to(headline) for plan in plans})


def _judge(
    judge: Judge,
    classifier: ZeroShotClassifier | Defence,
    plan: Plan,
    reader: Reader,
    defended: Defended | None,
    sources: Mapping[str, ZeroShotClassifier],
) -> None:
    if plan.gallery is not None:
        judge_retrieval(judge, classifier, plan, reader, defended.draws if defended is not None else None)
    elif defended is not None and defended.is_random:
        judge_random(judge, classifier, plan, reader, defended.rule, defended.draws, sources)
    else:
        judge_classification(judge, classifier, plan, reader, sources)


def _judged(
    plan: Plan,
    verdicts: Verdicts,
    headline: str,
    any_iterate: bool,
    eight_bit: bool,
    classifiers: _Classifiers,
    rule: Rule | None,
) -> list[Judged]:
    if plan.is_segmented:
        return judged_segmentation(plan, verdicts, headline, any_iterate, eight_bit)
    if plan.gallery is not None:
        # What draws make of an image is worst on the clean one and at all points, too.
        adds_up = any_iterate or rule is not None
        return judged_retrieval(plan, verdicts, headline, adds_up, eight_bit, classifiers.text_embeds(plan))
    if rule is not None:
        return judged_random(plan, verdicts, rule, headline, eight_bit)
    return judged_classification(plan, verdicts, headline, any_iterate, eight_bit)


def _result(judged: Judged, plan: Plan, headline: str) -> SetResult:
    """The figures of a row."""
    masks = judged.masks

    by_threat: dict[str, list[list[Outcome]]] = {}
    for spec in plan.attacks:
        by_threat.setdefault(spec.threat, []).append(masks[spec.name])
    worst = {threat: worst_case(*columns) for threat, columns in by_threat.items()}

    outcomes = {CLEAN: judged.clean, "robust": worst[headline], **masks}
    if judged.figure.is_of_pixels:
        outcomes.update(worst)  # from which intervals are drawn
    else:
        outcomes = {key: list(map(int, column)) for key, column in outcomes.items()}

    draws = None
    if judged.drawn is not None:
        draws = draw_figures(judged.drawn, [spec.name for spec in plan.attacks if spec.threat == headline])

    figure = judged.figure
    return SetResult(
        name=judged.name,
        num_classes=judged.num_candidates,
        num_samples=len(judged.ids),
        clean_accuracy=summed(figure, judged.clean),
        robust_accuracy=summed(figure, worst[headline]),
        attacks={name: summed(figure, column) for name, column in masks.items()},
        threats={threat: summed(figure, column) for threat, column in worst.items()},
        robust_8bit_accuracy=None if judged.rounded is None else summed(figure, judged.rounded),
        verdicts={"sample_id": judged.ids, **outcomes},
        figure=figure,
        class_names=judged.class_names,
        draws=draws,
        written=written_figures(judged.written),
    )


# ---- Flags ----


@dataclass(frozen=True)
class _Probed:
    """Flags from a few images of a set, and which of these rows random noise fooled."""

    name: str
    flags: list[Flag]
    rows: list[int]
    fooled: list[bool]


def _probe(
    classifier: ZeroShotClassifier | Defence, plan: Plan, reader: Reader, headline: AttackSpec, seed: int
) -> _Probed:
    rows = plan.rows[:PROBE_SIZE]
    device = classifier.device
    images, labels = reader.stack(rows)
    seeds = sample_seeds(seed, 0, torch.tensor(rows, device=device))
    is_random = isinstance(classifier, Defence) and classifier.is_random
    seen = at_one_draw(classifier) if is_random else classifier
    flags, fooled = probe(seen, images.to(device), labels.to(device), seeds, headline, plan.name)
    if is_random:  # one wrong draw at random noise is no misclassified point
        fooled = torch.zeros_like(fooled)
    return _Probed(plan.name, flags, rows, fooled.tolist())


def _flags(probed: Sequence[_Probed], results: Mapping[str, Sequence[SetResult]], plans: Sequence[Plan]) -> list[Flag]:
    flags = []
    for seen in probed:
        # The first result of a set is on its images, and on the first place.
        verdicts = results[seen.name][0].verdicts
        robust = dict(zip(verdicts["sample_id"], verdicts["robust"], strict=True))
        flags += seen.flags + noise_flag(seen.fooled, [robust[row] for row in seen.rows], seen.name)
    for plan in plans:
        for result in results[plan.name]:
            flags += verdict_flags(result, plan.attacks)
    return flags
