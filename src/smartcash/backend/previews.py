"""Previews: what the model says of the same few pictures after every epoch.

previews/index.json        the pictures, why each was chosen, and their truth
previews/000.jpg …         each picture once, at most `SHOWN_PX` long
previews/epoch_0001.json   what was found in each after that epoch, in px of the stored picture
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from smartcash.backend.boxes import select
from smartcash.backend.data import EvalBatches
from smartcash.backend.detector import Detector
from smartcash.backend.engine import Model, Precision
from smartcash.backend.images import read_image, write_image
from smartcash.backend.overlap import iou
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import PreviewsConfig
from smartcash.domain.errors import ConfigInvalid, Problem
from smartcash.utils.files import write_bytes

SHOWN_PX = 640
KEPT_BOXES, LEAST_SCORE = 50, 0.05
WORST, MIDDLE, BEST, CHOSEN = "worst", "middle", "best", "chosen"


@dataclass(frozen=True)
class Picture:
    """One picture that is watched. `index`: its place in the validation split, None for one from elsewhere.
    `ratio`: px of the stored picture per px of the original. `truth`: boxes as stored, None if not known."""

    file: str
    source: str
    index: int | None
    why: str
    width: int
    height: int
    ratio: float
    truth: list[dict[str, Any]] | None


class Previews:
    """Watches an evaluation (`watch` is its `on_image`) and writes what was found after each epoch.

    The first validation decides which pictures: a third each of those found worst, middling and best, and those
    that the configuration names. A run that goes on keeps the pictures of its index file, as long as the validation
    split still holds them in the same places; what the configuration names beyond them is added. Pictures from
    elsewhere are looked at as they are stored, so their originals may go. Raises ConfigInvalid for a name that is
    neither in the split nor a file."""

    def __init__(
        self,
        folder: Path,
        valid: EvalBatches,
        classes: tuple[str, ...],
        preprocess: Preprocess,
        precision: Precision,
        config: PreviewsConfig,
    ) -> None:
        self.folder, self.valid, self.classes, self.config = folder, valid, classes, config
        self.preprocess, self.precision = preprocess, precision
        self._found: dict[int, list[dict[str, Any]]] = {}
        self._quality: dict[int, float] = {}
        self._pictures = self._kept()
        kept = self._pictures or []
        self.named = _named(
            config.images, valid, {picture.source for picture in kept if picture.index is None}
        )
        places: set[int | str | None] = {
            picture.source if picture.index is None else picture.index for picture in kept
        }
        added = [item for item in self.named if (item if isinstance(item, int) else str(item)) not in places]
        if self._pictures is not None and added:
            self._pictures += [
                self._store(len(kept) + number, *self._chosen(item)) for number, item in enumerate(added)
            ]
            self._write_index(self._pictures)

    def watch(self, index: int, outcome: Any) -> None:
        """One picture of the validation split was looked at: (boxes, scores, labels) in px of the picture, or
        the probabilities of its classes."""
        wanted = None if self._pictures is None else {picture.index for picture in self._pictures}
        if wanted is None or index in wanted:
            self._found[index] = self._plain(outcome)
        if wanted is None:
            self._quality[index] = self._judge(index, outcome)

    def end_epoch(self, epoch: int, model: Model) -> Path | None:
        """Write the epoch's file; `model` looks at the pictures from elsewhere. None when there is nothing to
        watch."""
        if self._pictures is None:
            self._pictures = self._choose()
        if not self._pictures:
            return None
        rows = []
        for picture in self._pictures:
            if picture.index is not None and picture.index in self._found:
                found = [_scaled(row, picture.ratio) for row in self._found[picture.index]]
            else:
                found = [_scaled(row, 1.0) for row in self._plain(self._look(model, picture))]
            rows.append({"found": found})
        self._found.clear()
        path = self.folder / f"epoch_{epoch:04}.json"
        write_bytes(path, json.dumps({"epoch": epoch, "pictures": rows}, ensure_ascii=False).encode())
        return path

    def _kept(self) -> list[Picture] | None:
        """The pictures that this run has watched so far; None to choose: the first time, or with other data."""
        index = self.folder / "index.json"
        if not index.is_file():
            return None
        known = json.loads(index.read_text(encoding="utf-8"))
        pictures = [Picture(**picture) for picture in known["pictures"]]
        samples = self.valid.samples.pictures.samples
        same = all(
            picture.index is None
            or (
                picture.index < len(samples) and samples[picture.index].path.name == Path(picture.source).name
            )
            for picture in pictures
        )
        return pictures if same else None

    def _choose(self) -> list[Picture]:
        order = sorted(self._quality, key=lambda index: (self._quality[index], index))
        self._quality.clear()
        third = -(-self.config.count // 3)
        middle = order[max(0, (len(order) - third) // 2) :]
        ranked = zip((WORST, BEST, MIDDLE), (order[:third], order[::-1][:third], middle[:third]))
        turns = zip_longest(*([(index, why) for index in places] for why, places in ranked))
        chosen: dict[int, str] = {}
        for turn in turns:
            for index, why in filter(None, turn):
                if len(chosen) < self.config.count:
                    chosen.setdefault(index, why)
        for item in self.named:
            if isinstance(item, int):
                chosen[item] = CHOSEN
        shown = sorted(chosen, key=lambda index: (WORST, MIDDLE, BEST, CHOSEN).index(chosen[index]))
        sources: list[tuple[int | None, str, str]] = [
            (index, chosen[index], self._chosen(index)[2]) for index in shown
        ]
        sources += [self._chosen(item) for item in self.named if isinstance(item, Path)]
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.glob("epoch_*.json"):  # of other data: they speak of other pictures
            path.unlink()
        pictures = [self._store(number, *source) for number, source in enumerate(sources)]
        self._write_index(pictures)
        return pictures

    def _chosen(self, item: int | Path) -> tuple[int | None, str, str]:
        """Index, reason and source of a picture that the configuration names."""
        if isinstance(item, Path):
            return None, CHOSEN, str(item)
        return item, CHOSEN, str(self.valid.sample(item).path)

    def _write_index(self, pictures: Sequence[Picture]) -> None:
        described = {"classes": list(self.classes), "pictures": [asdict(picture) for picture in pictures]}
        write_bytes(self.folder / "index.json", json.dumps(described, indent=1, ensure_ascii=False).encode())

    def _store(self, number: int, index: int | None, why: str, source: str) -> Picture:
        image = read_image(source)
        height, width = image.shape[:2]
        ratio = min(1.0, SHOWN_PX / max(width, height))
        if ratio < 1:
            width, height = max(1, round(width * ratio)), max(1, round(height * ratio))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        name = f"{number:03}.jpg"
        write_image(self.folder / name, image)
        truth = None
        if index is not None:
            sample = self.valid.sample(index)
            rows = self._rows(sample.boxes_N4, np.ones(len(sample.labels_N)), sample.labels_N)
            truth = [_scaled(row, ratio) for row in rows]
        return Picture(name, source, index, why, width, height, ratio, truth)

    def _plain(self, outcome: Any) -> list[dict[str, Any]]:
        if isinstance(outcome, tuple):
            boxes, scores, labels = outcome
            kept = np.flatnonzero(scores >= LEAST_SCORE)[:KEPT_BOXES]
            return self._rows(boxes[kept], scores[kept], labels[kept])
        outcome = np.nan_to_num(outcome)  # JSON has no NaN
        best = np.argsort(-outcome)[:5]
        return self._rows(None, outcome[best], best)

    def _rows(
        self, boxes_N4: np.ndarray | None, scores_N: np.ndarray, labels_N: np.ndarray
    ) -> list[dict[str, Any]]:
        rows = []
        for place, (score, label) in enumerate(zip(scores_N.tolist(), labels_N.tolist())):
            row: dict[str, Any] = {"class": self.classes[label], "score": round(float(score), 4)}
            if boxes_N4 is not None and len(boxes_N4):
                row["box_xyxy"] = [float(side) for side in boxes_N4[place]]
            rows.append(row)
        return rows

    def _judge(self, index: int, outcome: Any) -> float:
        """How well a picture was found, 0…1: over its objects, the best IoU times score of the right class."""
        sample = self.valid.sample(index)
        if not isinstance(outcome, tuple):
            return float(outcome[sample.labels_N[0]])
        boxes, scores, labels = outcome
        if not len(sample.labels_N):
            return 1.0 - float(scores.max(initial=0.0))
        best = []
        for box, label in zip(sample.boxes_N4, sample.labels_N):
            same = labels == label
            best.append(float((iou(box[None], boxes[same])[0] * scores[same]).max(initial=0.0)))
        return float(np.mean(best))

    @torch.inference_mode()
    def _look(self, model: Model, picture: Picture) -> Any:
        """The outcome for a picture that is not in this process's validation split, as it is stored."""
        image = read_image(str(self.folder / picture.file))
        square = torch.from_numpy(self.preprocess.image(image)).permute(2, 0, 1)[None]
        model.eval()
        with self.precision.autocast():
            output = model(self.preprocess.normalize(square.to(self.precision.device)))
        if not isinstance(model, Detector):
            return output.softmax(-1)[0].float().cpu().numpy()
        boxes_BA4, scores_BAC = model.decode(output)
        boxes, scores, labels = (part.cpu().numpy() for part in select(boxes_BA4[0], scores_BAC[0]))
        return self.preprocess.boxes_back(boxes, image.shape[1], image.shape[0]), scores, labels


def _named(names: Sequence[str], valid: EvalBatches, stored: set[str]) -> list[int | Path]:
    """Each named picture as its place in the validation split, or its path, which may be gone once it is `stored`.
    Raises ConfigInvalid."""
    places = {sample.path.name: index for index, sample in enumerate(valid.samples.pictures.samples)}
    found: list[int | Path] = []
    problems = []
    for name in names:
        if name in places:
            found.append(places[name])
        elif Path(name).is_file() or str(Path(name).absolute()) in stored:
            found.append(Path(name).absolute())
        else:
            problems.append(Problem("training.previews.images", "preview_missing", name))
    if problems:
        raise ConfigInvalid(problems)
    return found


def _scaled(row: dict[str, Any], ratio: float) -> dict[str, Any]:
    if "box_xyxy" not in row:
        return row
    return {**row, "box_xyxy": [round(side * ratio, 1) for side in row["box_xyxy"]]}
