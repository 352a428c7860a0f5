"""The tab *Attack*: an image, class names, an attack, and what each model sees before and after."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..evaluation.attacked_image import AttackedImage, Seen, png_of
from ..fingerprints import digest
from ..plots import attacked_picture, margin_curves
from ..prompts.shipped import shipped_class_names, shipped_lists
from . import form
from .bench import Bench, Drawn
from .errors import shown_errors
from .settings import Settings
from .visitors import Visitors

PROGRESS = gr.Progress()  # whose default Gradio puts its own in place of
TOP = 5  # classes that are shown
AS_IT_IS = "The image as it is"
SECONDS = 0.2  # between two signs of progress
FIRST_ATTACK, FIRST_LOSS, FIRST_STEPS = "pgd", "margin", 20
ONE_AT_A_TIME = {"concurrency_id": "models", "concurrency_limit": 1}
SHOWN = {"interactive": False, "buttons": ["fullscreen"], "show_label": False}  # with its title inside the picture
AT_ONCE = {"concurrency_limit": None, "show_progress": "hidden"}


@dataclass(frozen=True)
class Result:
    """What a visitor's last attack came to, for other tabs.

    Args:
        attacked (`dict` of `AttackedImage`): By the model's name.
        templates (`list[str]`): How class names became prompts.

    Example:
        >>> Result({}, ["a photo of {}"]).templates
        ['a photo of {}']
    """

    attacked: Mapping[str, AttackedImage]
    templates: list[str]


class Handlers:
    """What happens in the tab. A method is an event: it reads what was typed, calls the package, shows what that said.

    Args:
        bench (`Bench`): What computes.
        visitors (`Visitors`): Who does.
        folder (`Path`): Where files for the browser go.
    """

    def __init__(self, bench: Bench, visitors: Visitors, folder: Path):
        self.bench = bench
        self.visitors = visitors
        self.folder = folder

    # ---- The image and its classes ----

    @shown_errors
    def draw(self, set_name: Any, row: Any, seed: Any) -> list[Any]:
        """A row of a set: its image, class names, templates and true class."""
        number = form.row_of(row)
        drawn = self.bench.draw(form.text_of("set", set_name), number, form.whole_of("seed", seed, 0, form.MOST_SEED))
        file = self.new_file(f"row-{drawn.row}.png")
        file.write_bytes(png_of(drawn.image))
        return [
            gr.Image(value=str(file), alt_text=f"Row {drawn.row} of {set_name}, of the class {drawn.label}"),
            form.lines_of(drawn.class_names),
            form.lines_of(drawn.prompt_templates),
            gr.Dropdown(choices=list(drawn.class_names), value=drawn.label),
            gr.Dropdown(choices=list(drawn.class_names), value=None),
            mark_of(drawn),
        ]

    @shown_errors
    def receive(self, value: Any) -> list[Any]:
        """A file of the visitor, of which no class is known."""
        if value is not None:
            self.bench.check(form.picture_of(value, None, self.folder))
        return [gr.Image(alt_text="Your image"), gr.Dropdown(value=None), gr.Dropdown(value=None)]

    @shown_errors
    def take_names(self, name: Any) -> list[Any]:
        """The class names of a list in the package."""
        names = shipped_class_names(form.text_of("list of class names", name))
        return [form.lines_of(names), *self.offer(names)]

    def refresh(self, text: Any) -> list[Any]:
        """The classes to choose from, where names were typed that can be read."""
        try:
            names = form.class_names_of(text, self.bench.settings)
        except ValueError:  # which is said when they are used
            names = []
        return self.offer(names)

    @staticmethod
    def offer(names: list[str]) -> list[Any]:
        """Class names for the fields of the true class and the target."""
        return [gr.Dropdown(choices=names), gr.Dropdown(choices=names)]

    # ---- The attack ----

    @staticmethod
    def choose_attack(attack: Any) -> list[Any]:
        """What an attack takes: norms, steps, losses."""
        if attack not in form.ATTACKS:
            attack = FIRST_ATTACK
        losses = form.losses_of(attack)
        return [
            gr.Dropdown(choices=form.norms_of(attack), value=form.norms_of(attack)[0]),
            gr.Slider(interactive=form.has_steps(attack)),
            gr.Dropdown(choices=losses, value=FIRST_LOSS if losses else None, interactive=bool(losses)),
        ]

    @staticmethod
    def choose_norm(norm: Any) -> Any:
        """The radii of a norm."""
        scale = form.SCALES.get(norm, form.SCALES["linf"])
        return gr.Slider(maximum=scale.most, step=scale.step, value=scale.first, label=_radius_label(norm, scale))

    @shown_errors
    def classify(
        self, value: Any, names: Any, templates: Any, drawn: Any, request: gr.Request, progress: Any = PROGRESS
    ) -> list[Any]:
        """What each model says of the image."""
        picture = form.picture_of(value, drawn, self.folder)
        class_names, prompts = form.classes_of(names, templates, self.bench.settings)
        with self.visitors.run(session_of(request)) as run:
            progress(0, desc="Encoding class names, and looking")
            seen = self.bench.classify(picture, class_names, prompts, lambda: run.go_on("the next model"))
        shown: list[Any] = []
        for each in seen.values():
            shown += [_label(each, AS_IT_IS), gr.Label(value=None)]
        return shown

    @shown_errors
    def attack(
        self,
        value: Any,
        names: Any,
        templates: Any,
        attack: Any,
        norm: Any,
        radius: Any,
        num_steps: Any,
        loss: Any,
        label: Any,
        target: Any,
        seed: Any,
        drawn: Any,
        request: gr.Request,
        progress: Any = PROGRESS,
    ) -> list[Any]:
        """Attacks each model on the image, and shows what came of it."""
        # What was typed
        picture = form.picture_of(value, drawn, self.folder)
        class_names, prompts = form.classes_of(names, templates, self.bench.settings)
        spec = form.attack_of(attack, norm, radius, num_steps, loss, self.bench.settings)
        aim = {
            "label": form.name_or_none("true class", label),
            "target": form.name_or_none("target class", target),
            "seed": form.whole_of("seed", seed, 0, form.MOST_SEED),
        }

        # The attack
        shown_at = 0.0
        with self.visitors.run(session_of(request)) as run:

            def on_pass(name: str, number: int, most: int) -> None:
                nonlocal shown_at
                run.go_on(f"pass {number} of at most {most} on {name}")
                if time.monotonic() - shown_at > SECONDS:
                    shown_at = time.monotonic()
                    progress((number, most), desc=f"{spec.name} on {name}", unit="passes")

            attacked = self.bench.attack(picture, class_names, prompts, spec, **aim, on_pass=on_pass)
        command = self.bench.command(picture, class_names, prompts, spec, **aim)
        return self.show(attacked, prompts, command)

    def stop(self, request: gr.Request) -> str:
        """Stops what this visitor computes."""
        run = self.visitors.stop(session_of(request))
        if run is None:
            return "Nothing of yours was running."
        if not run.wait(seconds=30):
            return "It stops after the pass that it is at."
        return f"Stopped at {run.at}."

    # ---- What is shown ----

    def show(self, attacked: Mapping[str, AttackedImage], prompts: list[str], command: str) -> list[Any]:
        """Pictures, predictions, verdicts and files of an attack, in the order of the page's fields."""
        curve = self.new_file("margins.png")
        margin_curves(attacked, curve)
        (spec,) = {each.attack.name for each in attacked.values()}
        shown: list[Any] = [
            f"Shown: **{spec}**, each model against its own attack.",
            Result(attacked, prompts),
            gr.Image(value=str(curve), alt_text=f"The margin of each model over the passes of {spec}"),
            command,
        ]
        for name, each in attacked.items():
            file = self.new_file(f"{form.file_name(name)}.png")
            attacked_picture(each, file, model_name=name)
            download = self.new_file(f"adversarial-{form.file_name(name)}.png")
            download.write_bytes(each.png())
            shown += [
                _label(each.before, AS_IT_IS),
                _label(each.after, f"Under {spec}"),
                _verdict(each),
                gr.Image(value=str(file), alt_text=f"{name}. {each.verdict}"),
                gr.DownloadButton(value=str(download), interactive=True),
            ]
        return shown

    # ---- Files ----

    def new_file(self, name: str) -> Path:
        """A place that nobody guesses for a file of this name."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder / name


def mark_of(drawn: Drawn) -> tuple[str, int, str]:
    """Set, row and the digest of the file, by which a row is known again."""
    return drawn.set_text, drawn.row, digest([png_of(drawn.image)])


def attack_tab(handlers: Handlers) -> gr.State:
    """Builds the tab, within the page that is open.

    Returns:
        `gr.State`: The [`Result`] of a visitor's last attack.
    """
    bench, settings = handlers.bench, handlers.bench.settings
    first = bench.draw(bench.names_of_sets[0])
    first_file = handlers.new_file(f"row-{first.row}.png")
    first_file.write_bytes(png_of(first.image))
    drawn = gr.State(mark_of(first))
    result = gr.State(None, time_to_live=3600)

    # The image, its classes, and the attack
    with gr.Row():
        with gr.Column():
            image = gr.Image(
                str(first_file),
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                buttons=[],
                height=280,
                label="Image",
                alt_text=f"Row {first.row} of {bench.names_of_sets[0]}, of the class {first.label}",
                elem_id="image",
            )
            with gr.Row():
                sets = gr.Dropdown(bench.names_of_sets, value=bench.names_of_sets[0], label="Or draw from the set")
                row = gr.Textbox("", label="Row", placeholder="by the seed", elem_id="row")
                draw_seed = gr.Number(0, precision=0, minimum=0, label="Seed of the draw")
            draw = gr.Button("Draw an image")
            names = gr.Textbox(
                form.lines_of(first.class_names),
                lines=5,
                max_lines=12,
                label="Class names",
                info="One a line, or with commas between them",
                elem_id="class_names",
            )
            lists = gr.Dropdown(shipped_lists(), value=None, label="Or take the class names of")
            templates = gr.Textbox(
                form.lines_of(first.prompt_templates),
                lines=1,
                max_lines=4,
                label="Prompt templates",
                info="One a line, each with one {} for the name",
            )
            classify = gr.Button("Classify", elem_id="classify")
        with gr.Column():
            attack, norm, radius, num_steps, loss = _attack_fields(settings)
            label = gr.Dropdown(
                list(first.class_names),
                value=first.label,
                allow_custom_value=True,
                label="True class",
                info="Empty: what each model says of the image as it is",
            )
            target = gr.Dropdown(
                list(first.class_names),
                value=None,
                allow_custom_value=True,
                label="Target class",
                info="Empty: any wrong class. PGD and FGSM alone go towards one",
            )
            seed = gr.Number(0, precision=0, minimum=0, label="Seed of the attack")
            with gr.Row():
                start = gr.Button("Attack", variant="primary", elem_id="attack")
                stop = gr.Button("Stop", variant="stop", elem_id="stop")
            status = gr.Markdown(elem_id="status")
            curve = gr.Image(**SHOWN, label="Margin over the passes", alt_text="No attack yet")

    # What comes of it, a column per model
    with gr.Row():
        columns = [_model_column(name) for name in bench.models]
    command = gr.Textbox(
        lines=2,
        max_lines=8,
        interactive=False,
        buttons=["copy"],
        label="The command that makes the same images",
        elem_id="command",
    )

    # What happens
    unread = {"preprocess": False}  # so that the package opens files and says what is wrong with them
    asked = [image, names, templates]
    draw.click(handlers.draw, [sets, row, draw_seed], [image, names, templates, label, target, drawn], api_name="draw")
    image.input(
        handlers.receive,
        [image],
        [image, label, target],
        trigger_mode="always_last",  # so that a file is looked at that comes right after another was taken away
        **unread,
        **AT_ONCE,
        api_visibility="private",
    )
    names.blur(handlers.refresh, [names], [label, target], **AT_ONCE, api_visibility="private")
    lists.input(handlers.take_names, [lists], [names, label, target], **AT_ONCE, api_visibility="private")
    attack.input(handlers.choose_attack, [attack], [norm, num_steps, loss], **AT_ONCE, api_visibility="private")
    norm.change(handlers.choose_norm, [norm], [radius], **AT_ONCE, api_visibility="private")

    labels = [field for column in columns for field in column[:2]]
    looking = classify.click(
        handlers.classify, [*asked, drawn], labels, **unread, **ONE_AT_A_TIME, api_name="classify"
    )
    attacking = start.click(
        handlers.attack,
        [*asked, attack, norm, radius, num_steps, loss, label, target, seed, drawn],
        [status, result, curve, command, *(field for column in columns for field in column)],
        **unread,
        **ONE_AT_A_TIME,
        api_name="attack",
    )
    stop.click(handlers.stop, None, [status], cancels=[looking, attacking], concurrency_limit=None, api_name="stop")
    return result


def _attack_fields(settings: Settings) -> list[Any]:
    scale = form.SCALES["linf"]
    with gr.Row():
        attack = gr.Dropdown(list(form.ATTACKS), value=FIRST_ATTACK, label="Attack")
        norm = gr.Dropdown(form.norms_of(FIRST_ATTACK), value="linf", label="Norm")
        loss = gr.Dropdown(form.losses_of(FIRST_ATTACK), value=FIRST_LOSS, label="Loss")
    radius = gr.Slider(
        0, scale.most, value=scale.first, step=scale.step, label=_radius_label("linf", scale), elem_id="radius"
    )
    most = settings.max_steps
    num_steps = gr.Slider(1, most, value=min(FIRST_STEPS, most), step=1, label="Steps", elem_id="steps")
    return [attack, norm, radius, num_steps, loss]


def _model_column(name: str) -> list[Any]:
    """Predictions before and after, the verdict, the pictures and the file of one model."""
    with gr.Column(min_width=320):
        gr.Markdown(f"## {name}")
        before = gr.Label(num_top_classes=TOP, label=AS_IT_IS)
        after = gr.Label(num_top_classes=TOP, label="Under attack")
        verdict = gr.Textbox(lines=3, max_lines=6, interactive=False, label="The 8-bit image in words")
        picture = gr.Image(**SHOWN, label=f"{name}: what it saw", alt_text="No attack yet")
        download = gr.DownloadButton(f"Adversarial image of {name}, 8-bit PNG", interactive=False)
    return [before, after, verdict, picture, download]


def _label(seen: Seen, label: str) -> Any:
    return gr.Label(value=seen.probabilities, label=label)


def _verdict(attacked: AttackedImage) -> str:
    if attacked.reads_back:
        return attacked.verdict
    return (
        f"{attacked.verdict} That is said of the image at the model's own size: its processor resizes the saved file, "
        "and may then see another one."
    )


def _radius_label(norm: Any, scale: form.Scale) -> str:
    return f"Radius in {norm}, in 255ths" if scale.unit else f"Radius in {norm}, of images in [0,1]"


def session_of(request: gr.Request | None) -> str:
    """The name of a visitor's session."""
    return (request.session_hash if request is not None else None) or ""
