"""Figures for the card of a model that is there already, in a folder or on the Hub."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

from ..evaluation.report import RobustnessReport
from ..files import write_whole
from ..fingerprints import fingerprint
from ..tuning.saved import load_model
from .card import MARKS, NOT_EVALUATED, result_block
from .results import model_index, save_eval_results

TAG = "hf-pmgaft"  # of every card that this package wrote
CARD = "README.md"
BEFORE = "robustness_before.json"


@dataclass(frozen=True)
class ExistingCard:
    """The card of a model of this package.

    Attributes:
        model (`str`): Folder or Hub id.
        text (`str`): The whole card.
        commit (`str`, *optional*): Where it was read on the Hub; none of a folder.
    """

    model: str
    text: str
    commit: str | None = None

    @classmethod
    def read(cls, model: str) -> ExistingCard:
        """Reads and checks the card of a folder or a model on the Hub.

        Raises:
            ValueError: for a model without a card, a card without metadata or with broken ones, and a card that this
                package did not write.
        """
        if Path(model).is_dir():
            file = Path(model) / CARD
            if not file.is_file():
                raise ValueError(f"{model} has no card {CARD} to update. Pass the folder of a run of this package.")
            card = cls(model, file.read_text(encoding="utf-8"))
        else:
            card = cls._of_hub(model)
        card.check()
        return card

    @classmethod
    def _of_hub(cls, model: str) -> ExistingCard:
        try:
            commit = HfApi(endpoint=constants.ENDPOINT).model_info(model).sha
            file = hf_hub_download(model, CARD, revision=commit)
        except EntryNotFoundError as error:
            raise ValueError(
                f"{model} has no card {CARD} on the Hub to update. Push the model with its card."
            ) from error
        except (RepositoryNotFoundError, HfHubHTTPError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{model} is no folder here, and no model that can be read on the Hub ({reason}). Correct the name."
            ) from error
        except Exception as error:  # of the line, for which each client has its own
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{model} is no folder here, and the Hub, where its card would be, was not reached ({reason}). Try "
                "again while it can be reached, or pass the model's folder."
            ) from error
        return cls(model, Path(file).read_text(encoding="utf-8"), commit)

    def check(self) -> None:
        """Raises `ValueError` for a card that figures of this package have no place in."""
        try:
            metadata = ModelCard(self.text).data.to_dict()
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"The metadata at the head of the card of {self.model} cannot be read ({reason}). Mend the YAML "
                "between the lines ---, and try again."
            ) from error
        if TAG not in (metadata.get("tags") or []):
            raise ValueError(
                f"The card of {self.model} is none that this package wrote: its tags have no {TAG}. Pass the model of "
                "a run of this package; other cards take figures by hand."
            )

    def check_weights(self, model: Mapping[str, Any]) -> None:
        """Raises `ValueError` unless a report's model has the weights that the card is of.

        Args:
            model (`dict`): `RobustnessReport.model`.
        """
        of_card = fingerprint(load_model(self.model))
        if model.get("fingerprint") != of_card:
            raise ValueError(
                f"The figures are of weights {model.get('fingerprint')}, but {self.model} has {of_card}: they would "
                "stand in another model's card. Evaluate the model whose card is to be updated."
            )

    def with_block(self, block: str, protocol: str) -> str:
        """Gives the card's text, without its metadata, with a block between marks in place of that of its protocol.

        Raises:
            ValueError: for figures of the same protocol that cannot be told from the text around them.
        """
        text = ModelCard(self.text).text
        start, end = (re.escape(mark.format(protocol)) for mark in MARKS)
        replaced, count = re.subn(rf"{start}.*?{end}", lambda _: block, text, flags=re.S)
        if count:
            return replaced
        if f"protocol `{protocol}`" in text:
            raise ValueError(
                f"The card of {self.model} has figures of protocol {protocol} without the marks around them. "
                "Delete these lines of it, and try again."
            )
        return _with_block(text, block)

    def with_figures(self, report: RobustnessReport, before: RobustnessReport | None = None) -> str:
        """Gives the card with a report's figures, in place of those of the same protocol and beside those of others.

        Args:
            report (`RobustnessReport`): Of the same weights.
            before (`RobustnessReport`, *optional*): Of the model before training; left out if of another protocol.

        Raises:
            ValueError: for figures of the same protocol that cannot be told from the text around them.
        """
        protocol = report.protocol_hash
        if before is not None and before.protocol_hash != protocol:
            before = None

        # Text
        card = ModelCard(self.text)
        text = self.with_block(result_block(report, before), protocol)

        # Metadata
        data = card.data
        kept = [result for result in data.eval_results or [] if (result.metric_args or {}).get("protocol") != protocol]
        data.eval_results = [*kept, *model_index(report)]
        data.model_name = data.model_name or Path(self.model).name
        return f"---\n{data.to_yaml()}\n---\n{text}"


def update_card(
    model: str,
    report: RobustnessReport,
    *,
    push: bool = False,
    benchmarks: Mapping[str, Mapping[str, tuple[str, str]]] | None = None,
    token: str | None = None,
) -> str:
    """Puts a report's figures into the card of a model, and the report beside it.

    Figures of the same protocol are replaced, those of others stay. The weights are compared before.

    Args:
        model (`str`): Folder, or Hub id with `push=True`.
        report (`RobustnessReport`): Of that model.
        push (`bool`): Whether to commit to the Hub; for a model there.
        benchmarks (`dict`, *optional*): Registered benchmarks for `.eval_results`, see [`save_eval_results`].
        token (`str`, *optional*): The one that is logged in if not given.

    Returns:
        `str`: The card.

    Raises:
        ValueError: for a card that cannot be read or was not written by this package, another model's figures, and a
            name on the Hub without `push`, or a folder with it.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig, ZeroShotDataset, evaluate_robustness
        >>> from hf_pmgaft.hub.card import save_model_card
        >>> from hf_pmgaft.objectives import make_objective
        >>> from hf_pmgaft.tuning import make_tuning
        >>> how = {"objective": make_objective("tecoa"), "tuning": make_tuning("vision_tower")}
        >>> model.save_pretrained("robust")
        >>> config = PMGAFTConfig(output_dir="robust", use_cpu=True)
        >>> card = save_model_card("robust", base_model="clip", config=config, licence="mit", **how)
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> report.protocol_hash in update_card("robust", report)
        True
    """
    check_target(model, push)
    card = ExistingCard.read(model)
    card.check_weights(report.model)
    text = card.with_figures(report, _before(card))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if push else Path(model)
        report.save(folder / f"robustness_{report.protocol_hash}.json")
        save_eval_results(folder, report, benchmarks or {})
        write_whole(folder / CARD, text)
        if push:
            _commit(card, folder, report.protocol_hash, token)
    return text


def update_card_text(
    model: str,
    figures: str,
    report: Mapping[str, Any],
    *,
    fingerprint: str,
    push: bool = False,
    token: str | None = None,
) -> str:
    """Puts figures of another kind than a [`RobustnessReport`]'s into the card of a model, and their report beside it.

    Args:
        model (`str`): Folder, or Hub id with `push=True`.
        figures (`str`): Markdown; it replaces that of the same protocol.
        report (`dict`): With its `"protocol_hash"`.
        fingerprint (`str`): Of the weights that were measured.
        push (`bool`), token (`str`, *optional*): As of [`update_card`].

    Returns:
        `str`: The card.

    Raises:
        ValueError: as [`update_card`].
    """
    check_target(model, push)
    card = ExistingCard.read(model)
    card.check_weights({"fingerprint": fingerprint})
    protocol = report["protocol_hash"]
    start, end = (mark.format(protocol) for mark in MARKS)
    metadata = card.text.removesuffix(ModelCard(card.text).text)
    text = metadata + card.with_block(f"{start}\n{figures}\n{end}", protocol)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if push else Path(model)
        write_whole(folder / f"answers_{protocol}.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_whole(folder / CARD, text)
        if push:
            _commit(card, folder, protocol, token)
    return text


def check_target(model: str, push: bool) -> None:
    """Raises `ValueError` for a model on the Hub that is not to be pushed, and a folder that is."""
    is_here = Path(model).is_dir()
    if push and is_here:
        raise ValueError(f"You passed push for {model}, a folder here. Pass the model's name on the Hub, USER/NAME.")
    if not push and not is_here:
        raise ValueError(
            f"You passed {model}, which is no folder here, without push, so nothing would be changed. Pass push for a "
            "model on the Hub, or a folder."
        )


def _before(card: ExistingCard) -> RobustnessReport | None:
    """The report of before training that lies beside a card, if there is one that can be read."""
    try:
        if card.commit is None:
            return RobustnessReport.load(Path(card.model) / BEFORE)
        return RobustnessReport.load(hf_hub_download(card.model, BEFORE, revision=card.commit))
    except (OSError, ValueError, EntryNotFoundError):
        return None


def _with_block(text: str, block: str) -> str:
    """A card's text with a block more: in place of the sentence that there are none, or after the others."""
    if NOT_EVALUATED in text:
        return text.replace(NOT_EVALUATED, block, 1)
    last = MARKS[1].split("{}")[0]
    if last in text:
        at = text.index("-->", text.rindex(last)) + len("-->")
    elif "\n## Limits" in text:
        at = text.index("\n## Limits")
    else:
        at = len(text)
    return f"{text[:at].rstrip()}\n\n{block}\n\n{text[at:].lstrip()}"


def _commit(card: ExistingCard, folder: Path, protocol: str, token: str | None) -> None:
    """Commits the files of a folder, unless the repository was changed since the card was read."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    operations = [CommitOperationAdd(str(path.relative_to(folder)), path.read_bytes()) for path in files]
    HfApi(endpoint=constants.ENDPOINT, token=token).create_commit(
        card.model, operations, commit_message=f"Figures of protocol {protocol}", parent_commit=card.commit
    )
