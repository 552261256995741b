"""Pictures that show the same shot: across splits they make the score too good, with other labels one is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartcash.backend.formats.alike import Look, alike_pairs, alike_when_turned, joined
from smartcash.backend.formats.files import SPLIT_WORDS
from smartcash.backend.formats.model import DataSet, Findings, Sample
from smartcash.backend.formats.splitting import stem_of_original

_SURE_DETAIL = 0.80  # to accuse a label: on 750 Rupiah photos no pair of different notes is that alike
_MAX_VERSIONS = 50  # of one original that are compared with each other


def look_alikes(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """Near-duplicates across splits, within a split, and with different classes; one finding per group.

    Byte-identical pictures are left to `read_dataset`, which has reported them.
    """
    split_of = {sample.path: split for split, found in dataset.splits.items() for sample in found}
    samples = list({sample.digest: sample for sample in dataset.samples}.values())
    turned: list[tuple[int, int]] = []
    for versions in _versions(samples, dataset.root, split_of):
        found = [
            (i, j)
            for i, j in combinations(versions[:_MAX_VERSIONS], 2)
            if alike_when_turned(looks[samples[i].path], looks[samples[j].path])
        ]
        turned += found
        if not found:
            _report("data_image_leak_name", [samples[index] for index in versions], split_of, findings)

    held = [tuple(np.unique(sample.labels_N).tolist()) for sample in samples]
    accused: dict[int, int] = {}  # picture → the first that is surely alike and holds other classes

    @lru_cache(maxsize=4096)
    def detail(index: int) -> NDArray[np.float32]:
        return looks[samples[index].path].detail_D.astype(np.float32)

    def sure(i: int, j: int) -> bool:
        return float(detail(i) @ detail(j)) >= _SURE_DETAIL

    def judged(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The pairs as they come, never all at once: of n frames of one scene, n² pairs are alike."""
        for i, j in pairs:
            if held[i] != held[j] and j < accused.get(i, len(samples)) and sure(i, j):
                accused[i] = j
            yield i, j

    alike = alike_pairs([looks[sample.path] for sample in samples], sure=True)
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample, leader in zip(samples, joined(len(samples), judged(chain(alike, turned)))):
        groups[leader].append(sample)
    for group in groups.values():
        if len(group) > 1:
            crossing = len({split_of[sample.path] for sample in group}) > 1
            _report("data_image_leak_alike" if crossing else "data_image_alike", group, split_of, findings)

    for i, j in sorted(accused.items()):
        here, there = ("+".join(dataset.classes[label] for label in held[index]) or "–" for index in (i, j))
        other = samples[j].path
        findings.add(
            "data_image_alike_labels", samples[i].path, value=here, also=[other], others=findings.name(other),
            other_classes=there,
        )  # fmt: skip


def _versions(samples: list[Sample], root: Path, split_of: Mapping[Path, str]) -> list[list[int]]:
    """Pictures in different splits whose names say that they are versions of one original: `a_jpg.rf.1f…` and
    `a_jpg.rf.2e…`, `a` and `a - Copy`. A name without such a mark says nothing: many sets count from 1 in
    every split."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    marked = set()
    for index, sample in enumerate(samples):
        folders = sample.path.parent.parts[len(root.parts) :]
        original = stem_of_original(sample.path.stem)
        key = (*(name for name in folders if name.casefold() not in SPLIT_WORDS), original)
        found[key].append(index)
        if original != sample.path.stem:
            marked.add(key)
    return [
        versions
        for key, versions in found.items()
        if key in marked and len({split_of[samples[index].path] for index in versions}) > 1
    ]


def _report(code: str, group: list[Sample], split_of: Mapping[Path, str], findings: Findings) -> None:
    """One finding for a group; a picture of another split, if there is one, is named first of the others."""
    first, *rest = group
    rest.sort(key=lambda sample: split_of[sample.path] == split_of[first.path])
    also = [sample.path for sample in rest]
    places = " + ".join(dict.fromkeys(split_of[sample.path] for sample in group))
    findings.add(
        code, first.path, value=len(group), also=also, others=findings.names(also), splits=places
    )  # fmt: skip
