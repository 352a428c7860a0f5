"""Emoji drawings of many styles: fetched from pinned npm packages, matched to Unicode emoji, rendered to one array."""

import io
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from fontTools.pens.boundsPen import BoundsPen
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.ttLib import TTFont
from PIL import Image

HERE = Path(__file__).parent
SIZE = 48  # pixels
COPY = 0.03  # mean absolute difference, in [0,1], below which a drawing counts as a copy of another one
GROUPS = {
    0: "smileys",
    3: "animals",
    4: "food",
    5: "travel",
    6: "activities",
    7: "objects",
    8: "symbols",
    9: "flags",
}


@dataclass(frozen=True)
class Emoji:
    """One Unicode emoji: `code` its lower-case code points without FE0F, `label` its lower-case Unicode name."""

    code: str
    character: str
    label: str
    group: str
    subgroup: str
    tags: tuple[str, ...]


def load_styles() -> dict[str, dict]:
    """The drawing styles by name, with source, licence and role."""
    return yaml.safe_load((HERE / "styles.yaml").read_text())["styles"]


def fetch(build: Path) -> Path:
    """Install the pinned npm packages of styles.yaml below `build` and return their `node_modules` folder."""
    spec = yaml.safe_load((HERE / "styles.yaml").read_text())
    pinned = [spec["metadata"], spec["renderer"], *spec["styles"].values()]
    root = build / "npm"
    root.mkdir(parents=True, exist_ok=True)
    dependencies = {entry["package"]: entry["version"] for entry in pinned}
    (root / "package.json").write_text(json.dumps({"private": True, "dependencies": dependencies}, indent=2))
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=root, check=True)
    return root / "node_modules"


def check_licences(modules: Path):
    """Raise if a package's own licence field is not the one that styles.yaml states."""
    for name, style in load_styles().items():
        licence = json.loads((modules / style["package"] / "package.json").read_text())["license"]
        stated = style.get("package_license", style["license"])
        if licence != stated:
            raise ValueError(f"{name}: {style['package']} is under {licence}, styles.yaml says {stated}.")


def normalise(code: str) -> str:
    """The code points of an emoji in one spelling, such as `2764` of `2764_FE0F`."""
    return "-".join(part for part in code.lower().replace("_", "-").split("-") if part != "fe0f")


def load_emoji(modules: Path) -> list[Emoji]:
    """The 1,526 emoji of the eight groups, in Unicode order; people, skin tones and components are left out."""
    data = modules / "emojibase-data"
    subgroups = json.loads((data / "meta/groups.json").read_text())["subgroups"]
    rows = [row for row in json.loads((data / "en/data.json").read_text()) if row.get("group") in GROUPS]
    return [
        Emoji(
            code=normalise(row["hexcode"]),
            character=row["emoji"],
            label=row["label"].lower(),
            group=GROUPS[row["group"]],
            subgroup=subgroups[str(row["subgroup"])].replace("-", " "),
            tags=tuple(tag.lower() for tag in row.get("tags", [])),
        )
        for row in sorted(rows, key=lambda row: row["order"])
    ]


def slug(text: str, join: str = "-") -> str:
    """A text as icons are named, such as `cat-face`."""
    ascii_text = text.replace("’", "").replace("'", "").replace("&", "and").lower()
    return join.join(re.findall(r"[a-z0-9]+", ascii_text))


def iso_code(emoji: Emoji) -> str | None:
    """The region code that a flag's code points spell, e.g. `fr` or `gb-eng`."""
    points = [int(part, 16) for part in emoji.code.split("-")]
    if len(points) == 2 and all(0x1F1E6 <= point <= 0x1F1FF for point in points):
        return "".join(chr(point - 0x1F1E6 + ord("a")) for point in points)
    letters = "".join(chr(point - 0xE0000) for point in points[1:] if 0xE0020 < point < 0xE007F)
    return f"{letters[:2]}-{letters[2:]}" if letters else None


def candidate_names(emoji: Emoji, style: dict, chars: dict[str, str]) -> list[str]:
    """The names under which `style` may hold a drawing of `emoji`, best first."""
    if style["names"] == "chars":
        return [chars[emoji.code]] if emoji.code in chars else []
    if style["names"] == "iso":
        names = [iso_code(emoji)] if iso_code(emoji) else []
    elif emoji.label.startswith("flag: "):
        names = [slug(emoji.label.replace("flag: ", "flag for "), style.get("join", "-"))]
    else:
        names = [slug(emoji.label, style.get("join", "-"))]
    return [name + suffix for name in names for suffix in style.get("suffixes", [""])]


def match_icons(emojis: list[Emoji], style: dict, styles: dict, modules: Path) -> dict[int, dict]:
    """Index of each emoji that `style` draws -> render job with its SVG text and size."""
    icons = json.loads((modules / style["package"] / "icons.json").read_text())
    chars_package = styles[style["chars_from"]]["package"] if "chars_from" in style else style["package"]
    chars_file = modules / chars_package / "chars.json"
    chars = {}
    if style["names"] == "chars":
        chars = {normalise(code): name for code, name in json.loads(chars_file.read_text()).items()}

    jobs = {}
    for index, emoji in enumerate(emojis):
        for name in candidate_names(emoji, style, chars):
            name = icons.get("aliases", {}).get(name, {}).get("parent", name)
            if name in icons["icons"]:
                jobs[index] = svg_job(icons["icons"][name], icons)
                break
    return jobs


def match_glyphs(emojis: list[Emoji], style: dict, modules: Path) -> dict[int, dict]:
    """Index of each emoji that is a single code point of the style's font -> render job of its glyph."""
    font = TTFont(modules / style["package"] / style["font"])
    glyphs, names = font.getGlyphSet(), font.getBestCmap()
    jobs = {}
    for index, emoji in enumerate(emojis):
        name = names.get(int(emoji.code, 16)) if "-" not in emoji.code else None
        bounds, path = BoundsPen(glyphs), SVGPathPen(glyphs)
        if name is not None:
            glyphs[name].draw(bounds)
            glyphs[name].draw(path)
        if bounds.bounds is not None:
            left, bottom, right, top = bounds.bounds  # y grows upwards in a font
            body = f'<path transform="scale(1 -1)" d="{path.getCommands()}"/>'
            box = {"left": left, "top": -top, "width": right - left, "height": top - bottom}
            jobs[index] = svg_job({**box, "body": body}, {})
    return jobs


def svg_job(icon: dict, icons: dict) -> dict:
    """What the renderer needs of an icon, whose box is that of its set where it has none of its own."""
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{left} {top} '
    body = icon["body"].replace("currentColor", "#000")
    svg = f'{head}{width} {height}" width="{width}" height="{height}">{body}</svg>'
    return {"svg": svg, "width": width, "height": height}


def render_svgs(jobs: list[dict], scratch: Path, modules: Path) -> tuple[np.ndarray, list[int]]:
    """Render `jobs` to premultiplied uint8 RGBA `[N, SIZE, SIZE, 4]`; also returns those that crash the renderer."""
    scratch.mkdir(parents=True, exist_ok=True)
    jobs_path, frames_path = scratch / "jobs.json", scratch / "frames.bin"
    jobs_path.write_text(json.dumps(jobs))
    frames_path.write_bytes(b"")
    frame_bytes = SIZE * SIZE * 4

    # A crash ends the process, and the next one goes on behind the drawing that caused it, which stays empty.
    crashed = []
    while (done := frames_path.stat().st_size // frame_bytes) < len(jobs):
        command = ["node", HERE / "render.mjs", jobs_path, frames_path, str(SIZE), str(done), modules]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        done = frames_path.stat().st_size // frame_bytes
        if done < len(jobs):
            if "Cannot find module" in result.stderr:
                raise RuntimeError(f"The renderer is not installed; run the step `fetch` first.\n{result.stderr}")
            crashed.append(done)
            with frames_path.open("ab") as frames:
                frames.write(bytes(frame_bytes))

    frames = np.frombuffer(frames_path.read_bytes(), np.uint8).reshape(-1, SIZE, SIZE, 4)
    return frames, crashed


def read_rasters(emojis: list[Emoji], style: dict, modules: Path) -> tuple[list[int], np.ndarray]:
    """Emoji indices and premultiplied RGBA frames of a style that comes as one raster file per emoji."""
    files = {normalise(path.stem): path for path in sorted((modules / style["package"] / style["folder"]).iterdir())}
    indices = [index for index, emoji in enumerate(emojis) if emoji.code in files]
    frames = np.zeros((len(indices), SIZE, SIZE, 4), np.uint8)
    for frame, index in zip(frames, indices, strict=True):
        image = Image.open(files[emojis[index].code]).convert("RGBA").convert("RGBa")
        image.thumbnail((SIZE, SIZE), Image.Resampling.BOX if max(image.size) > 4 * SIZE else Image.Resampling.LANCZOS)
        top, left = (SIZE - image.height) // 2, (SIZE - image.width) // 2
        frame[top : top + image.height, left : left + image.width] = np.asarray(image)
    return indices, frames


def render_all(emojis: list[Emoji], modules: Path, scratch: Path) -> dict[str, np.ndarray]:
    """Render every style. Returns arrays `frames` (premultiplied RGBA), `emoji` (index) and `style` (index)."""
    styles = load_styles()
    frames, emoji, style_ids = [], [], []
    groups = np.array([each.group for each in emojis])
    for style_id, (name, style) in enumerate(styles.items()):
        # Drawings
        crashed = []
        if style["names"] == "files":
            indices, images = read_rasters(emojis, style, modules)
        else:
            if style["names"] == "font":
                jobs = match_glyphs(emojis, style, modules)
            else:
                jobs = match_icons(emojis, style, styles, modules)
            images, crashed = render_svgs(list(jobs.values()), scratch, modules)
            indices = list(jobs)

        # Those that are wanted, and not empty
        indices = np.asarray(indices)
        wanted = ~np.isin(groups[indices], style.get("skip_groups", []))
        keep = np.flatnonzero(wanted & (images[..., 3] > 0).any((1, 2)))
        frames.append(images[keep])
        emoji.append(indices[keep])
        style_ids.append(np.full(len(keep), style_id))
        print(f"  {name:28} {len(keep):5} images, {len(crashed)} not renderable, role {style['role']}", flush=True)

    return {"frames": np.concatenate(frames), "emoji": np.concatenate(emoji), "style": np.concatenate(style_ids)}


def copies(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Whether each drawing of a shift style lies within `COPY` of a training style's drawing of the same emoji."""
    roles = np.array([style["role"] for style in load_styles().values()])[arrays["style"]]
    images = on_white(arrays["frames"])
    copied = np.zeros(len(images), bool)
    for row in np.flatnonzero(roles == "shift"):
        seen = images[(roles == "train") & (arrays["emoji"] == arrays["emoji"][row])].astype(np.int16)
        copied[row] = (np.abs(seen - images[row]).mean((1, 2, 3)) < 255 * COPY).any()
    return copied


def on_white(frames: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA -> RGB on white, uint8."""
    return frames[..., :3] + (255 - frames[..., 3:])


def webp(image: np.ndarray) -> bytes:
    """Lossless WebP bytes of an RGB image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()
