"""Model card, data card and attributions of the embedded default, written from styles.yaml and measured figures."""

import art
import yaml

TEMPLATES = art.HERE / "templates"
ROLES = {"train": "pre-training", "validation": "validation splits", "test": "test splits", "shift": "shift sets"}


def fill(name: str, **values: str) -> str:
    """Fill the `{{placeholders}}` of a template."""
    text = (TEMPLATES / name).read_text()
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def table(header: list[str], rows: list[list]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def attribution(few_shots: set[str]) -> str:
    """Who drew each style, under which licence, and what it is used for; `few_shots` are the styles of that set."""
    rows = []
    for name, style in art.load_styles().items():
        use = ROLES[style["role"]] + (", fine-tuning set" if style.get("finetune") else "")
        use += ", few-shot set" if name in few_shots else ""
        package = f"{style['package']} {style['version']}"
        rows.append([name, f"[{style['author']}]({style['url']})", style["license"], package, use])
    return fill("ATTRIBUTION.md", styles=table(["style", "drawn by", "licence", "npm package", "used for"], rows))


def data_card(
    counts: dict[str, dict[str, int]],
    classes: dict[str, int],
    shift: dict[str, int],
    drawings: dict[str, int],
    scenes: dict[str, int],
) -> str:
    """The card of the sets.

    Args:
        counts: Images by configuration and split.
        classes: The number of class names by configuration.
        shift: Images by style.
        drawings: How many emoji have at least so many different drawings.
        scenes: Scenes by split.
    """
    configs = [
        {
            "config_name": config,
            **({"default": True} if config == "finetune" else {}),
            "data_files": [{"split": split, "path": f"{config}/{split}.parquet"} for split in splits],
        }
        for config, splits in {**counts, "scenes": scenes, "shift": shift}.items()
    ]
    header = ["configuration", "classes", "train", "validation", "test"]
    rows = [
        [config, classes[config], *(splits.get(split, "") for split in header[2:])]
        for config, splits in counts.items()
    ]
    return fill(
        "data_card.md",
        configs=yaml.safe_dump({"configs": configs}, sort_keys=False).strip(),
        counts=table(header, rows),
        shift=table(["split of `shift`", "images"], [list(row) for row in shift.items()]),
        scenes=", ".join(f"{number} in `{split}`" for split, number in scenes.items()),
        drawings=table(
            ["different drawings, at least", *(count for count in drawings if int(count) % 4 == 0)],
            [["emoji", *(number for count, number in drawings.items() if int(count) % 4 == 0)]],
        ),
    )


def model_card(figures: dict[str, dict[str, float]], record: dict) -> str:
    """The card of the model.

    Args:
        figures: Top-1 accuracy in per cent by split and group, with means.
        record: What pre-training wrote down.
    """
    test, validation = figures["test"], figures["validation"]
    rows = [[group, f"{test[group]:.1f}", f"{validation[group]:.1f}"] for group in test]
    results = [{"name": "embedded default", "results": [metric(group, value) for group, value in test.items()]}]
    drawings = record["drawings"]
    return fill(
        "model_card.md",
        index=yaml.safe_dump({"model-index": results}, sort_keys=False).strip(),
        figures=table(["group", "test (twemoji)", "validation (noto-v1)"], rows),
        mean=f"{test['mean']:.1f}",
        steps=f"{record['steps']:,}",
        minutes=f"{record['minutes']:.0f}",
        weights={"EMA": "exponentially averaged", "raw": "last"}[record["weights"]],
        drawings=f"{drawings['images']:,}",
        styles=str(drawings["styles"]),
        emoji=f"{drawings['emoji']:,}",
    )


def metric(group: str, value: float) -> dict:
    """A figure as the Hub reads it from a card."""
    return {
        "task": {"type": "zero-shot-image-classification"},
        "dataset": {"name": f"emoji, {group}", "type": "emoji", "config": group, "split": "test"},
        "metrics": [{"type": "accuracy", "name": "top-1 (%)", "value": round(value, 2)}],
    }
