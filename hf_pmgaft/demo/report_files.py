"""Report files of visitors: read as what somebody unknown wrote, and shown as a page that can ask for nothing."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import TemplateError

from ..data.evaluation_sets import ZeroShotDataset
from ..evaluation.comparison import check_one_protocol, compare_reports, disagreements
from ..evaluation.figure import Figure
from ..evaluation.report import RobustnessReport
from ..evaluation.same_images import check_same_images
from ..pages import comparison_page, report_page

MOST_REPORTS = 10
PAIR = 2  # as many may be as large as each is on its own; of more, all together as large as these
# What a page has room and time for, of one report.
MOST_SETS, MOST_FIGURES, MOST_ATTACKS = 200, 20, 200
MOST_IMAGES = 200_000  # of a set
MOST_OF_PIXELS = 300_000  # outcomes of which intervals are drawn by the bootstrap, of all sets together
MOST_COUNTS = 3_000_000  # images of a set times the classes that are in them
LONGEST_NAME = 200
LARGEST_PAGE = 12_000_000  # characters
# What a report that is none in its details raises where it is shown.
NO_REPORT = (KeyError, IndexError, TypeError, AttributeError, ArithmeticError, RecursionError, TemplateError)


def read_reports(values: Any, folder: Path, max_bytes: int) -> dict[str, RobustnessReport]:
    """The reports that lie on the page, by the names of their files.

    Args:
        values (list of `dict`): What Gradio hands on of the files, unread.
        folder (`Path`): Where uploads lie. What lies elsewhere is no upload.
        max_bytes (`int`): Of a file. All together may have twice as many.

    Raises:
        ValueError: for no file, too many or too large ones, and for what is no report.

    Example:
        >>> read_reports([], Path("uploads"), 1000)
        Traceback (most recent call last):
        ValueError: There is no report. Drop the JSON file of `pmgaft evaluate --output_file`, or several of one ...
    """
    values = [value for value in values or [] if isinstance(value, Mapping)]
    if not values:
        raise ValueError(
            "There is no report. Drop the JSON file of `pmgaft evaluate --output_file`, or several of one protocol."
        )
    if len(values) > MOST_REPORTS:
        raise ValueError(f"You passed {len(values)} reports. Pass one to look at, or up to {MOST_REPORTS} to compare.")

    reports: dict[str, RobustnessReport] = {}
    num_bytes = 0
    for value in values:
        place = value.get("path")
        file = Path(place).resolve() if isinstance(place, str) and place else folder
        if folder.resolve() not in file.parents or not file.is_file():
            raise ValueError("A report is here no more. Drop it into the page again.")
        name = _name(value.get("orig_name"), file)
        if file.stat().st_size > max_bytes:
            raise ValueError(f"{name} has {file.stat().st_size:,} bytes. At most {max_bytes:,} are read.")
        num_bytes += file.stat().st_size
        if num_bytes > PAIR * max_bytes:
            raise ValueError(f"The reports have more than {PAIR * max_bytes:,} bytes together. Pass fewer of them.")
        content = file.read_bytes()
        check_shape(content, name, len(values))
        report = RobustnessReport.from_json(content, name)
        same = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        reports[next(each for each in same if each not in reports)] = report
    return reports


def _name(original: Any, file: Path) -> str:
    """What a file was called where it came from."""
    name = PurePosixPath(original.replace("\\", "/")).name if isinstance(original, str) else ""
    return (name or file.name).removesuffix(".json")[:LONGEST_NAME]


def check_shape(content: bytes, name: str, num_reports: int = 1) -> None:
    """Raises `ValueError` for a report of more than a page has time for, before anything of it is computed.

    Of many reports each may have fewer sets and pixels, so that all have no more than two could.

    What is no report at all passes: [`RobustnessReport.from_json`] says what is wrong with it.

    Example:
        >>> check_shape(b'{"sets": [{"name": "food"}]}', "mine")
        >>> check_shape(b'{"sets": [' + b", ".join([b"{}"] * 300) + b"]}", "mine")
        Traceback (most recent call last):
        ValueError: mine has 300 rows of sets. At most 200 are shown.
    """
    try:
        data = json.loads(content)
        sets, protocol = list(data["sets"]), data["protocol"] if "protocol" in data else {}
        attacks = protocol.get("attacks", [])
        verdicts = [dict(each.get("verdicts", {})) for each in sets]
        figures = [str(each.get("figure", "accuracy")) for each in sets]
        names = [str(each.get("name")) for each in sets]
        counts = [max((len(column) for column in columns.values()), default=0) for columns in verdicts]
        of_pixels = [Figure.parse(figure).is_of_pixels for figure in figures]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return

    share = max(num_reports, PAIR)
    columns_of_pixels = [each for each, is_of_pixels in zip(verdicts, of_pixels, strict=True) if is_of_pixels]
    limits = {
        "rows of sets": (len(sets), PAIR * MOST_SETS // share),
        "kinds of figures": (len(set(figures)), MOST_FIGURES),
        "attacks": (len(attacks), MOST_ATTACKS),
        "images in a set": (max(counts, default=0), MOST_IMAGES),
        "characters in the name of a set": (max(map(len, names), default=0), LONGEST_NAME),
        "counts of pixels": (
            sum(len(column) for each in columns_of_pixels for column in each.values()),
            PAIR * MOST_OF_PIXELS // share,
        ),
        "images of a set times its classes": (max(map(_num_counts, columns_of_pixels), default=0), MOST_COUNTS),
    }
    for what, (number, most) in limits.items():
        if number > most:
            of_many = f" of each of {num_reports} reports" if num_reports > PAIR else ""
            raise ValueError(f"{name} has {number:,} {what}. At most {most:,} are shown{of_many}.")


def _num_counts(columns: Mapping[str, Any]) -> int:
    """How large a table of the images of a segmented set and of all classes in them would be."""
    most = 0
    for column in columns.values():
        classes = {
            str(entry[0])
            for outcome in column
            if isinstance(outcome, list)
            for entry in outcome
            if isinstance(entry, list) and entry
        }
        most = max(most, len(column) * len(classes))
    return most


# ---- What is shown ----


def keys_of(reports: Mapping[str, RobustnessReport]) -> list[str]:
    """Under what images are right or wrong in all reports: `clean`, `robust`, and the attacks.

    Example:
        >>> from hf_pmgaft.evaluation.report import SetResult
        >>> food = SetResult("food", 4, 2, 1.0, 0.5, {}, {"sample_id": [0, 1], "clean": [1, 1], "robust": [1, 0]})
        >>> keys_of({"mine": RobustnessReport({}, [food])})
        ['robust', 'clean']
    """
    verdicts = [result.verdicts for report in reports.values() for result in report.sets]
    keys = dict.fromkeys(["robust", "clean", *(key for columns in verdicts for key in columns)])
    return [key for key in keys if key != "sample_id" and any(key in columns for columns in verdicts)]


def page_of(
    reports: Mapping[str, RobustnessReport],
    key: str = "robust",
    ignore: Sequence[str] = (),
    sets: Mapping[str, Sequence[ZeroShotDataset]] | None = None,
    pair: tuple[str, str] | None = None,
) -> str:
    """The page of one report, or of several that are compared.

    Args:
        reports (`dict` of `RobustnessReport`): One or several, by name.
        key (`str`): Under what the images that one model alone has right are shown.
        ignore (`list[str]`): Keys of the protocol that may differ.
        sets (`dict` of lists of `ZeroShotDataset`, *optional*): By name the sets whose images may be shown, each as
            one or several processors read it.
        pair (`tuple[str, str]`, *optional*): The two that are compared image by image; the first if not given.

    Raises:
        ValueError: for reports that cannot be compared or shown.

    Example:
        >>> from hf_pmgaft import evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> page_of({"mine": report})[:15]
        '<!doctype html>'
    """
    names = " and ".join(reports)
    try:
        if len(reports) == 1:
            ((name, report),) = reports.items()
            page = report_page(report, _model_of(report, name))
        else:
            if len(reports) > PAIR:  # of which none is named where there are two
                check_one_protocol(reports, ignore)
            pair = pair or tuple(reports)[:PAIR]
            two = {name: reports[name] for name in pair}
            comparison = compare_reports(*two.values(), ignore)
            page = comparison_page(reports, comparison, key, sets_of(two, key, sets or {}), pair)
    except NO_REPORT as error:
        raise ValueError(
            f"{names} cannot be shown as a report ({type(error).__name__}: {error}). Pass the JSON file as "
            "`pmgaft evaluate --output_file` wrote it."
        ) from error
    if len(page) > LARGEST_PAGE:
        raise ValueError(f"The page of {names} would have {len(page):,} characters. At most {LARGEST_PAGE:,} go.")
    return page


def sets_of(
    reports: Mapping[str, RobustnessReport], key: str, sets: Mapping[str, Sequence[ZeroShotDataset]]
) -> dict[str, ZeroShotDataset]:
    """Of the sets that may be shown those in which two reports disagree, read as the first report read them, if any
    processor does.

    Example:
        >>> sets_of({}, "robust", {})
        {}
    """
    if len(reports) < 2:
        return {}
    first, second = reports.values()
    chosen = {}
    for found in disagreements(first, second, key):
        if found.dataset in sets and (found.gained or found.lost):
            chosen[found.dataset] = _as_judged(first, found.rows, sets[found.dataset])
    return chosen


def _as_judged(report: RobustnessReport, rows: Sequence[int], readings: Sequence[ZeroShotDataset]) -> ZeroShotDataset:
    for data in readings:
        try:
            check_same_images(report, data, rows)
        except ValueError:  # which the page says of the first one, if none is the report's
            continue
        return data
    return readings[0]


def _model_of(report: RobustnessReport, name: str) -> str:
    """What the model of a report is called, if it says so."""
    model = report.provenance.get("model", {}).get("name", name)
    return model if isinstance(model, str) else name


def in_a_frame(page: str, title: str) -> str:
    """A page within another one, in which it can run nothing, ask for nothing, and reach nothing.

    Example:
        >>> in_a_frame('<p title="a">text</p>', "Report")[-62:]
        'srcdoc="&lt;p title=&quot;a&quot;&gt;text&lt;/p&gt;"></iframe>'
    """
    return (
        f'<iframe title="{html.escape(title)}" sandbox="" '
        'style="width: 100%; height: 85vh; border: 1px solid var(--border-color-primary, #888); border-radius: 6px" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )
