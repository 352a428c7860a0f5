"""What are test-time defences worth on the embedded default, against attackers who know them?

    python examples/studies/defences.py                                  # all of it, in parts if need be
    python examples/studies/defences.py --towers none --defences none TTC
    python examples/studies/defences.py --table                          # from what is there

The original, FARE and PMG-AFT as the leaderboard chose them (seed 0), each undefended and behind each defence, on the
210 images of leaderboard_subset.json: 30 of each of the seven groups that no training saw. Smoothing is measured on 8
of each, 56 images, and R-TPT on 9 of each but the flags, 54 images: behind its context the name of one flag is longer
than the text tower. Both are compared with the undefended tower on the same images.

Part `pgd`: 20 steps on the margin at 4/255 and 8/255, unaware, through and straight through. A step that knows a
random defence goes by the mean over 4 draws; by one of R-TPT, each of which has 64 views, and of hedge, each of which
takes 20 steps of its own. Verdicts are by 5 draws, predictions of smoothing by 10,000 at alpha 0.001. Part `apgd`:
APGD of 50 steps on the margin at 4/255, where a prediction takes few passes, to see whether PGD was too weak. This
was chosen for about two and a half hours of one core, by passes timed on a few images: smoothing takes two fifths of
them, R-TPT and hedge as much together. Sigma of smoothing is 0.05: on the validation style, twice of it halves the
clean accuracy.

A deterministic model is wrong where any step of an attack was; a random one where most draws at its end are. This can
only favour a random defence over the undefended tower.

Trained towers, and logs, are kept in --output_dir, which the leaderboard shares. What was measured goes to
results/defences_runs.json as it comes, and is not measured again; tables and figures go to results/defences.json, the
picture to results/defences.png. Passes are counted at the vision tower, seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import leaderboard as board
from tqdm.auto import tqdm

RESULTS = Path(__file__).parent / "results"
NONE = "none"
TOWERS = [NONE, "fare", "pmg_aft"]
SEED = 0
STYLE = "test"
ATTACKERS = ("unaware", "through", "straight_through")
WORST = "worst"
_keeping = Lock()


class Setting(NamedTuple):
    """A defence, and how much is drawn from it.

    Args:
        spec (`str`, *optional*): The defence with its options; none at all if absent.
        eot (`int`, *optional*), draws (`int`, *optional*): Draws of a step and of a verdict, of a random defence.
        per_group (`int`): Images of each group.
        left_out (`tuple`): Groups whose names it cannot take.
        parts (`tuple`): What is measured.
        probes (`bool`): Whether gradients are looked at on a few images, which takes thirty predictions of each.
    """

    spec: str | None = None
    eot: int | None = None
    draws: int | None = None
    per_group: int = 30
    left_out: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("pgd", "apgd")
    probes: bool = True


DEFENCES = {
    NONE: Setting(),
    "random noise": Setting("random_noise", eot=4, draws=5),
    "TTC": Setting("ttc", eot=4, draws=5, parts=("pgd",)),
    "hedge": Setting("hedge", eot=1, draws=5, parts=("pgd",), probes=False),
    "anti-adversary": Setting("anti_adversary"),
    "anti-adversary, small": Setting("anti_adversary,step_size=1/255,num_steps=4"),
    "views": Setting("ensemble"),
    "CLIPure": Setting("clipure"),
    "CLIPure, released": Setting("clipure_released"),
    "R-TPT": Setting("r_tpt", eot=1, draws=5, per_group=9, left_out=("flags",), parts=("pgd",), probes=False),
    "smoothing": Setting("smoothing,sigma=0.05", eot=4, draws=10_000, per_group=8, parts=("pgd",)),
}
# By part the attack, and its radii.
PARTS = {
    "pgd": ("pgd,num_steps=20,loss=margin", ["4/255", "8/255"]),
    "apgd": ("apgd,num_steps=50,loss=margin", ["4/255"]),
}


class Run(NamedTuple):
    """One measurement: a tower behind a defence under an attack."""

    tower: str
    defence: str
    part: str

    @property
    def key(self) -> str:
        """Its name in the file of runs."""
        return "/".join(self)

    @property
    def file_name(self) -> str:
        """Its name as a file."""
        return self.key.replace("/", "-").replace(", ", "-").replace(" ", "-")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", nargs="?", default="all", choices=["all", "one"], help="one is what all starts.")
    parser.add_argument("--towers", nargs="+", default=TOWERS, choices=TOWERS, help="What is defended.")
    parser.add_argument("--defences", nargs="+", default=list(DEFENCES), choices=DEFENCES, help="By what.")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="Attacks, see above.")
    parser.add_argument("--jobs", type=int, default=2, help="Measurements at once, each with one thread.")
    parser.add_argument("--output_dir", default="outputs/leaderboard", help="Where trained towers are.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Where runs, figures and the picture go.")
    parser.add_argument("--max_samples", type=int, help="Images of a group at most, for a trial; needs --results.")
    parser.add_argument("--table", action="store_true", help="Measure nothing.")
    args = parser.parse_args(argv)
    if args.max_samples is not None and args.results == RESULTS:
        parser.error("--max_samples would put figures of fewer images beside the others. Pass another --results.")
    return args


def main(argv: list[str] | None = None) -> None:
    """Trains and measures what is missing, prints the tables, and writes figures and picture."""
    args = parse(argv)
    if args.what == "one":
        write_one(args)
        return
    if not args.table:
        missing = [run for run in wanted(args) if run.key not in read_runs(args)]
        tuned = dict.fromkeys(run.tower for run in missing if run.tower != NONE)
        board.start(args, [(tower, board.chosen(tower), SEED) for tower in tuned], "training")
        start(args, missing)

    summary = summarized(read_runs(args))
    lines = tables(summary)
    print("\n".join(lines))
    board.write(args.results / "defences.json", {"tables": lines, "figures": summary})
    draw(summary, args.results / "defences.png")


# ---- Measuring ----


def wanted(args: argparse.Namespace) -> list[Run]:
    """All measurements: those under PGD first, and the undefended towers before all others."""
    runs = itertools.product(args.parts, args.defences, args.towers)
    return [Run(tower, defence, part) for part, defence, tower in runs if part in DEFENCES[defence].parts]


def start(args: argparse.Namespace, runs: list[Run]) -> None:
    """Makes measurements in processes of their own, several at once, and keeps each as it comes."""

    def one(run: Run) -> str | None:
        file = file_of(args, run)
        file.parent.mkdir(parents=True, exist_ok=True)
        chosen = ["--towers", run.tower, "--defences", run.defence, "--parts", run.part]
        places = ["--output_dir", args.output_dir, "--results", str(args.results)]
        few = [] if args.max_samples is None else ["--max_samples", str(args.max_samples)]
        command = [sys.executable, __file__, "one", *chosen, *places, *few]
        with file.with_suffix(".log").open("w") as log:
            environment = {**os.environ, **board.ONE_THREAD}
            done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            return f"{file} ended with code {done.returncode}: see its log"
        with _keeping:
            board.write(args.results / "defences_runs.json", {**read_runs(args), run.key: board.read(file)})
        return None

    with ThreadPoolExecutor(args.jobs) as pool:
        failed = [text for text in tqdm(pool.map(one, runs), total=len(runs), disable=not runs) if text]
    if failed:
        sys.exit("error: " + "\n".join(failed))


def file_of(args: argparse.Namespace, run: Run) -> Path:
    """The file in which a measurement's process leaves what it came to."""
    return Path(args.output_dir) / "defences" / f"{run.file_name}.json"


def write_one(args: argparse.Namespace) -> None:
    """Makes one measurement in this process."""
    run = Run(args.towers[0], args.defences[0], args.parts[0])
    board.write(file_of(args, run), measure(args, run))


def measure(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """What is kept of a measurement: verdicts image by image, flags, and what it cost."""
    from hf_pmgaft import evaluate_robustness
    from hf_pmgaft.tuning.saved import load_pair

    setting = DEFENCES[run.defence]
    model, processor = load_pair(str(folder_of(args, run.tower)))
    sets = load_sets(processor, setting.left_out)
    attack, radii = PARTS[run.part]
    most = setting.per_group if args.max_samples is None else min(setting.per_group, args.max_samples)

    passes = Passes(model)
    prediction = cost_of_prediction(passes, setting, model, processor, sets[0])
    passes.begin()
    report = evaluate_robustness(
        model,
        processor,
        sets,
        [f"{attack},eps={eps}" for eps in radii],
        probes=setting.probes,
        max_samples=most,
        defence=setting.spec,
        eot=setting.eot,
        draws=setting.draws,
    )
    images = sum(result.num_samples for result in report.sets)
    return {
        "images": images,
        "eot": setting.eot,
        "draws": setting.draws,
        "rows": {result.name: result.verdicts["sample_id"] for result in report.sets},
        "verdicts": verdicts_of(report),
        "shares": [result.draws for result in report.sets],
        "flags": report.flags,
        "prediction": prediction,
        "evaluation": passes.cost(images),
        "protocol": report.protocol_hash,
    }


def folder_of(args: argparse.Namespace, tower: str) -> Path:
    """The folder of a tower."""
    if tower == NONE:
        return board.EMOJI / "model"
    return board.folder_of(args, tower, board.chosen(tower), SEED)


def load_sets(processor: Any, left_out: Sequence[str]) -> list[Any]:
    """The groups that no training saw, but those left out, with the rows of the stored subset."""
    from hf_pmgaft.cli import evaluate as command

    chosen = [group for group in board.GROUPS[STYLE] if group not in left_out]
    groups = [f"{board.EMOJI / 'data'}:{group}@{STYLE}" for group in chosen]
    subset = str(board.HERE / "leaderboard_subset.json")
    flags = ["--eval_sets", *groups, "--prompt_template", "an emoji of {}", "--sample_ids", subset]
    sets, _ = command.load_sets(command.parse(flags), processor)
    return sets


def verdicts_of(report: Any) -> dict[str, list[str]]:
    """Packed verdicts of each group: clean, and by radius and attacker. A model without defence has one attacker."""
    columns = {"clean": "clean"}
    for spec in report.attacks:
        columns[f"{spec.options['eps']} {spec.attacker or WORST}"] = spec.name
    return {
        title: [board.packed(result.verdicts[column]) for result in report.sets] for title, column in columns.items()
    }


class Passes:
    """Counts images that pass a model's vision tower, forward and backward, and the processor's time."""

    def __init__(self, model: Any):
        model.vision_model.register_forward_hook(self._count)
        self.begin()

    def begin(self) -> None:
        """Counts from here on."""
        self.forward = 0
        self.backward = 0
        self.started = time.process_time()

    def cost(self, images: int) -> dict[str, float]:
        """Passes and milliseconds of an image."""
        milliseconds = 1000 * (time.process_time() - self.started)
        figures = {"forward": self.forward, "backward": self.backward, "milliseconds": milliseconds}
        return {key: round(value / images, 2) for key, value in figures.items()}

    def _count(self, tower: Any, args: Any, output: Any) -> None:
        embeds = output.pooler_output
        self.forward += len(embeds)
        if embeds.requires_grad:
            embeds.register_hook(self._count_backward)

    def _count_backward(self, gradient: Any) -> None:
        self.backward += len(gradient)


def cost_of_prediction(passes: Passes, setting: Setting, model: Any, processor: Any, data: Any) -> dict[str, float]:
    """What one prediction of a few images costs, by one draw; the second one is measured."""
    import torch

    from hf_pmgaft import ZeroShotClassifier, encode_class_names
    from hf_pmgaft.defences.spec import DefenceSpec

    model.eval()
    class_embeds = encode_class_names(model, processor, data.class_names, data.prompt_templates)
    classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
    pictures = torch.stack([data[row]["images"] for row in data.sample_ids[:8]])
    options = {}
    if setting.spec is not None:
        spec = DefenceSpec.parse(setting.spec)
        classifier = spec.wrap(classifier, model, processor, data.class_names, data.prompt_templates)
        options = {"seeds": torch.arange(len(pictures))}

    with torch.no_grad():
        classifier(pictures, **options)
        passes.begin()
        classifier(pictures, **options)
    return passes.cost(len(pictures))


def read_runs(args: argparse.Namespace) -> dict[str, Any]:
    """What was measured so far."""
    return board.read(args.results / "defences_runs.json")


# ---- What is shown ----


def summarized(runs: Mapping[str, Any]) -> dict[str, Any]:
    """By part, tower and defence: accuracies in %, their intervals, and the paired difference to the bare tower."""
    summary: dict[str, Any] = {}
    order = [Run(tower, defence, part).key for part in PARTS for tower in TOWERS for defence in DEFENCES]
    for key in filter(runs.__contains__, order):
        run, entry = Run(*key.split("/")), runs[key]
        undefended = runs.get(Run(run.tower, NONE, run.part).key)
        figures = {title: accuracy(list(right.values())) for title, right in columns_of(entry).items()}
        if undefended is not None and run.defence != NONE:
            for title in ("clean", *(f"{eps} {WORST}" for eps in PARTS[run.part][1])):
                figures[title]["against undefended"] = against(columns_of(undefended)[title], columns_of(entry)[title])
        kept = ("images", "eot", "draws", "prediction", "evaluation", "flags")
        row = {"figures": figures, "shares": mean_shares(entry), **{name: entry[name] for name in kept}}
        summary.setdefault(run.part, {}).setdefault(run.tower, {})[run.defence] = row
    return summary


def columns_of(entry: Mapping[str, Any]) -> dict[str, dict[tuple[str, int], int]]:
    """By title the verdict on each image, with the worst of the attackers at each radius."""
    images = [(group, row) for group, rows in entry["rows"].items() for row in rows]
    columns = {}
    for title, groups in entry["verdicts"].items():
        columns[title] = dict(zip(images, itertools.chain(*map(board.unpacked, groups)), strict=True))

    for eps in dict.fromkeys(title.split()[0] for title in columns if title != "clean"):
        of_attackers = [column for title, column in columns.items() if title.split()[0] == eps]
        columns[f"{eps} {WORST}"] = {image: min(column[image] for column in of_attackers) for image in images}
    return columns


def accuracy(right: list[int]) -> dict[str, Any]:
    """An accuracy in %, with its 95 % interval."""
    from hf_pmgaft.evaluation.intervals import wilson_interval

    share = sum(right) / len(right)
    return {"accuracy": percent(share), "interval_95": [percent(end) for end in wilson_interval(share, len(right))]}


def mean_shares(entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What the draws of a random defence say, clean and under the worst attacker at the first radius, in %."""
    of_sets = [shares for shares in entry["shares"] if shares is not None]
    if not of_sets:
        return {}
    return {
        title: {key: percent(statistics.fmean(of_set[title][key] for of_set in of_sets)) for key in of_sets[0][title]}
        for title in ("clean", "robust")
    }


def against(bare: Mapping[Any, int], defended: Mapping[Any, int]) -> dict[str, Any]:
    """By how many points a defence is ahead on its images, with the paired 95 % interval."""
    from hf_pmgaft.evaluation.intervals import paired_difference

    pair = paired_difference([bare[image] for image in defended], list(defended.values()))
    return {"points": percent(pair.difference), "interval_95": [percent(end) for end in pair.interval]}


def percent(share: float) -> float:
    """A share in %, as it is kept."""
    return round(100 * share, 2)


def tables(summary: Mapping[str, Any]) -> list[str]:
    """A table in Markdown for each attack and tower, and one of costs."""
    lines = []
    for part, of_part in summary.items():
        radii = PARTS[part][1]
        for tower, rows in of_part.items():
            lines += [f"{title_of(tower)}, {part} {' and '.join(radii)}:", "", *table(rows, *radii), ""]
    return [*lines, "Costs:", "", *cost_table(summary)]


def title_of(tower: str) -> str:
    """A tower's name in print."""
    return "original" if tower == NONE else board.METHODS[tower]["title"]


def table(rows: Mapping[str, Any], eps: str, *larger: str) -> list[str]:
    """Accuracies of one tower, a line per defence: at a radius by all attackers, at larger ones by the worst."""
    heads = ["defence", "clean", *(attacker.replace("_", " ") for attacker in ATTACKERS), "worst", "gain"]
    heads += [f"{title} at {radius}" for radius in larger for title in ("worst", "gain")]
    lines = [heads, ["---"] * len(heads)]
    for defence, row in rows.items():
        figures = row["figures"]
        cells = [defence, f"{figures['clean']['accuracy']:.1f}"]
        cells += [cell(figures, eps, attacker) for attacker in ATTACKERS]
        for radius in (eps, *larger):
            worst = figures[f"{radius} {WORST}"]
            ahead = worst.get("against undefended")
            cells.append(f"{worst['accuracy']:.1f} ({span(worst['interval_95'])})")
            cells.append("" if ahead is None else f"{ahead['points']:+.1f} ({span(ahead['interval_95'], '+.1f')})")
        lines.append(cells)
    return [f"| {' | '.join(cells)} |" for cells in lines]


def cell(figures: Mapping[str, Any], eps: str, attacker: str) -> str:
    """What one attacker leaves, in print. Where straight through is the same attack as through, it was not run."""
    if f"{eps} {attacker}" in figures:
        return f"{figures[f'{eps} {attacker}']['accuracy']:.1f}"
    return "= through" if f"{eps} through" in figures else ""


def span(interval: Iterable[float], form: str = ".1f") -> str:
    """An interval in print."""
    return " to ".join(format(end, form) for end in interval)


def cost_table(summary: Mapping[str, Any]) -> list[str]:
    """What a prediction and the evaluation under PGD cost, a line per defence, on the first tower."""
    lines = [["defence", "images", "draws", "EOT", "prediction: passes", "ms", "evaluation: passes"]]
    lines.append(["---"] * len(lines[0]))
    for defence, row in next(iter(summary.get("pgd", {}).values()), {}).items():
        prediction, whole = ({key: f"{value:,.0f}" for key, value in row[name].items()} for name in COSTS)
        cells = [defence, row["images"], row["draws"] or "", row["eot"] or ""]
        cells += [passes_in_words(prediction), f"{row['prediction']['milliseconds']:.1f}", passes_in_words(whole)]
        lines.append(list(map(str, cells)))
    hours = sum(
        row["images"] * row["evaluation"]["milliseconds"]
        for of_part in summary.values()
        for of_tower in of_part.values()
        for row in of_tower.values()
    )
    return [f"| {' | '.join(cells)} |" for cells in lines] + ["", f"{hours / 3.6e6:.1f} hours of one core in all."]


COSTS = ("prediction", "evaluation")


def passes_in_words(cost: Mapping[str, str]) -> str:
    """Passes of an image, forward and backward."""
    return f"{cost['forward']} + {cost['backward']}"


def draw(summary: Mapping[str, Any], picture: Path) -> None:
    """A panel per tower, in it each defence clean, attacked by who does not know it, and by the worst attacker."""
    from study_plots import bars_with_spread

    eps = PARTS["pgd"][1][0]
    conditions = {"clean": "clean", f"unaware attack, {eps}": f"{eps} unaware", f"worst attack, {eps}": f"{eps} worst"}
    panels: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for tower, rows in summary.get("pgd", {}).items():
        panel = panels.setdefault(f"accuracy of {title_of(tower)}", {})
        for condition, title in conditions.items():
            panel[condition] = {
                defence: bar(row["figures"].get(title, row["figures"][f"{eps} {WORST}"]))
                for defence, row in rows.items()
            }
    if panels and len({tuple(panel["clean"]) for panel in panels.values()}) == 1:
        bars_with_spread(panels, picture, columns=1)


def bar(figure: Mapping[str, Any]) -> tuple[float, float]:
    """An accuracy in %, and half its interval."""
    low, high = figure["interval_95"]
    return figure["accuracy"], (high - low) / 2


if __name__ == "__main__":
    main()
