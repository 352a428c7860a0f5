"""docs/vision_language_families.md: what works with each family of vision-language models, as the tests saw it."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hf_pmgaft import VisionLanguageModel, attack_answers, swap_vision_tower, vision_tower
from hf_pmgaft.downstream.answer_attacks import PgdAttack
from hf_pmgaft.downstream.answer_evaluation import AnswerEvaluation
from hf_pmgaft.downstream.families import FAMILIES
from hf_pmgaft.downstream.scores import VqaScore
from hf_pmgaft.downstream.tasks import AnswerTask
from hf_pmgaft.evaluation.tables import render
from hf_pmgaft.evaluation.verdicts import Verdicts
from support.paths import ROOT
from support.vlm_families import QUESTIONS, as_file, make_clip, make_pictures, make_siglip

PAGE = ROOT / "docs" / "vision_language_families.md"
ANSWERS = ["cat", "money bag, tagged coin"]
DONORS = {"clip_vision_model": make_clip, "siglip_vision_model": make_siglip}
SEEN = ["family", "tower swap", "pixels differ by", "untargeted", "targeted", "resume", "seen with transformers"]
HOW = ["family", "image processor", "images are attacked at", "told beside the pixels", "prompt"]


def seen_row(kind: str, vlm: VisionLanguageModel, resumes: bool) -> list[str]:
    """What was seen of a family: how far its pixels are from a file's, and how losses move under attack."""
    images = make_pictures(vlm.image_size)
    away, towards = (loss_moved(vlm, images, targeted) for targeted in (False, True))
    return [
        f"`{kind}`",
        swapped(vlm),
        f"{levels_apart(vlm, images):.2f} levels",
        f"{away:+.2f}",
        f"{towards:+.2f}",
        "yes" if resumes else "no",
        transformers.__version__,
    ]


def how_row(kind: str, vlm: VisionLanguageModel) -> list[str]:
    """What the package does for a family."""
    family = FAMILIES[kind.split()[0]]
    told = [f"`{name}`" for name in (*family.by_size, *filter(None, [family.token_types]))]
    prompt = f"`{family.prompt}`" if family.prompt else "chat template"
    at = "the tower's size" if family.own_size else "the file's size"
    return [f"`{kind}`", type(vlm.processor.image_processor).__name__, at, ", ".join(told) or "nothing", prompt]


def swapped(vlm: VisionLanguageModel) -> str:
    """Whether a CLIP's or a SigLIP's tower takes the place of the model's, on which it was seen."""
    kind = vision_tower(vlm.model).config.model_type
    if kind not in DONORS:
        return f"refused: a {type(vision_tower(vlm.model)).__name__}"
    swap_vision_tower(vlm.model, DONORS[kind]())
    return "from a CLIP" if kind == "clip_vision_model" else "from a SigLIP"


def levels_apart(vlm: VisionLanguageModel, images: torch.Tensor) -> float:
    """How far pixels under attack are from those that the processor makes of the files, in levels of 8 bits."""
    made = [vlm.processor(images=as_file(image), text=vlm.prompt("?"), return_tensors="pt") for image in images]
    expected = torch.cat([of_image["pixel_values"] for of_image in made])
    std = min(vlm.processor.image_processor.image_std)
    return 255 * std * (vlm.pixels.inputs(images)["pixel_values"] - expected).abs().max().item()


def loss_moved(vlm: VisionLanguageModel, images: torch.Tensor, targeted: bool) -> float:
    """By how much the loss of answers about images of 8 bits changes under attack, the smaller of two."""
    options: dict[str, Any] = {"eps": "4/255", "num_steps": 6, "random_start": False, "targeted": targeted}
    attacked = attack_answers(vlm, images, QUESTIONS, [[answer] for answer in ANSWERS], **options)
    with torch.no_grad():
        before, after = (
            vlm.answer_loss(vlm.pixels.as_judged(shown), QUESTIONS, ANSWERS) for shown in (images, attacked)
        )
    moved = after - before
    return moved[moved.abs().argmin()].item()


def resumes(vlm: VisionLanguageModel, file: Path) -> bool:
    """Whether an evaluation that is stopped before its last text goes on with that one, to the same result."""
    images, right = make_pictures(vlm.image_size), [["yes"], ["no"]]
    task = AnswerTask("asked", "vqa", QUESTIONS, right, VqaScore(right), max_new_tokens=4)
    task.score.is_done = lambda score: False  # what random weights write is wrong
    write, written = vlm.write, []

    def evaluate(verdicts: Verdicts) -> dict[str, Any]:
        attack = PgdAttack(num_steps=2)
        return AnswerEvaluation(vlm, [3, 8], images, "own", verdicts, ["4/255"], attack, batch_size=1).run(task)

    def stopping(*args: Any) -> list[str]:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(args)
        return write(*args)

    whole = evaluate(Verdicts(None, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm, "write", stopping)
        with pytest.raises(KeyboardInterrupt), closing(Verdicts(file, {})) as verdicts:
            evaluate(verdicts)
        patch.setattr(vlm, "write", lambda *args: written.append(args) or write(*args))
        with closing(Verdicts(file, {})) as verdicts:
            return evaluate(verdicts) == whole and len(written) == 4


def write_page(seen: dict[str, list[str]], how: dict[str, list[str]]) -> None:
    """Writes the page with the rows of families."""
    versions = " and ".join(f"{name} {version(name).split('+')[0]}" for name in ("torch", "torchvision"))
    text = TEXT.format(versions=versions, seen=_table(SEEN, seen), how=_table(HOW, how))
    PAGE.write_text(text, encoding="utf-8")


def stored_rows() -> dict[str, list[str]]:
    """The rows of the first table of the page, by family; none before it was written."""
    if not PAGE.exists():
        return {}
    first = PAGE.read_text(encoding="utf-8").split("## ")[1]
    rows = [line[2:-2].split(" | ") for line in first.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


def _table(header: list[str], rows: dict[str, list[str]]) -> str:
    return render([header, *rows.values()], "markdown")


TEXT = """# Which vision-language models can be attacked

`pmgaft attack-vlm --model NAME` and `VisionLanguageModel` take any `AutoModelForImageTextToText` of the families
below, in float32. A LLaVA works with Pillow alone. The others need torchvision, and are refused by
name without:

```bash
pip install torchvision
```

## What was seen

Tiny models of each family, with random weights and processors made by the tests. They also passed their tests with
transformers 5.23.0, and all but InternVL and Gemma 3, which need 5.23, with 5.19.0. The table is of
{versions}.

{seen}

- *Pixels differ by*: at most, between the pixels under attack and those of the file through the model's own processor,
  in levels of 8 bits. Attacks walk through floating point numbers, and a resize of 8 bits rounds. Verdicts are on
  images of 8 bits, by the same processor, whose pixels are those of the file.
- *Untargeted*, *targeted*: by how much the loss of the answer changes on such an image, the smaller of two.
  Numbers of random weights say that the attack works, and nothing of the family.
- *Resume*: a stopped evaluation goes on to the same texts.

`make families` writes this page, in a minute.

## What is done for each

{how}

- All that depends on an image's size is made once for a question and a size. A step of an attack recomputes pixel
  values alone, and checks that the image is cut up as before.
- When a model is opened, the gradient is compared with the change of the loss on one image. A processor that leaves
  the graph, rounds or scales the gradient is refused by name.
- The tokens of a prompt are those of the processor's chat template. PaliGemma has none, so its question stands behind
  the image. Prompts see both ways there, and answers what came before, as in decoding.
- InternVL, LLaVA-NeXT, LLaVA-OneVision, Idefics 3 and SmolVLM cut an image into tiles, as their processors do if not
  told otherwise, and Gemma 3 does not. Each pixel gets the gradient of all tiles that it is in.
- `--image_options '{{"crop_to_patches": false}}'` makes one tile of an InternVL's image, `do_pan_and_scan` several of
  a Gemma 3's, and `do_image_splitting` one of an Idefics 3's. The report names what was set.
- Idefics 3 and SmolVLM resize by Lanczos on a CPU and bicubically on a GPU. These are two threats; the report names
  the device. SmolVLM's processor needs `num2words`.
- Images of a batch are of one size. An evaluation makes batches of equal sizes.

## From Python

```python
import torch
from hf_pmgaft import attack_answers, load_vlm

model = load_vlm("examples/emoji/llava")
images, question = torch.ones(2, 3, 40, 40), ["describe it"] * 2
adversarial = attack_answers(model, images, question, [["warning"]] * 2, eps="8/255", targeted=True, num_steps=10)
print(model.write(adversarial, question))
```
"""
