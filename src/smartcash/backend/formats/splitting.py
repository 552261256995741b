"""Splits in which copies, bursts and near-duplicates of a picture stay together (groups)."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from smartcash.backend.formats.alike import joined, near_duplicates
from smartcash.backend.formats.model import Findings, Sample, relative_name

GroupsBy = Literal["auto", "name", "off"]


def shares_of(valid_percent: int, test_percent: int) -> dict[str, float]:
    """The share of each split, 0 to 1, when valid and test get so many percent of the pictures and train the rest; a
    split without a share is left out."""
    percents = {
        "train": 100 - valid_percent - test_percent,
        "valid": valid_percent,
        "test": test_percent,
    }
    return {split: percent / 100 for split, percent in percents.items() if percent}


SHARES = shares_of(15, 15)

# Endings that say "a copy of": Roboflow's hash, a file manager's copy, an augmentation, a burst.
_COPY_MARKS = re.compile(
    r"(\.rf\.[0-9a-f]{8,}"
    r"|[ _-]*(copy|kopie|salinan|copia)( ?\(?\d+\)?)?"
    r"|[ _-]+(aug(mented)?|flip(ped)?|hflip|vflip|rot(ated?)?|blur(red)?|noise|noisy|bright(ness)?|dark|crop|"
    r"gray|grey|hue|shear|scale|contrast)[ _-]?\d*"
    r"|_burst\d+(_cover)?)$",
    re.IGNORECASE,
)
_COPY_NUMBER = re.compile(r" ?\(\d{1,2}\)$")


def stem_of_original(stem: str) -> str:
    """The file stem without everything that marks a copy: `a_jpg.rf.1f…` and `a - Copy (2)` → `a`."""
    while (shorter := _COPY_MARKS.sub("", stem)) not in ("", stem):
        stem = shorter
    return re.sub(r"_(jpe?g|png)$", "", stem)


def grouped(samples: Sequence[Sample], root: Path, *, look: bool) -> list[Sample]:
    """The samples with their groups: by name and identical bytes, with `look` also by looking alike.

    A group is named by its first member.
    """
    names = [relative_name(sample.path, root) for sample in samples]
    named: list[tuple[int, int]] = []
    same: dict[object, int] = {}
    stems = {(sample.path.parent, sample.path.stem) for sample in samples}
    for index, sample in enumerate(samples):
        folder, stem = sample.path.parent, stem_of_original(sample.path.stem)
        unnumbered = _COPY_NUMBER.sub("", stem)
        if (folder, unnumbered) in stems:  # `note (2)` is a copy only where there is a `note`
            stem = unnumbered
        named += [(same.setdefault(key, index), index) for key in ((folder, stem), sample.digest)]
    # one by one: of n frames of one scene, n² pairs are alike
    alike = near_duplicates([sample.path for sample in samples]) if look else ()
    leaders = joined(len(samples), chain(named, alike))
    return [replace(sample, group=names[leader]) for sample, leader in zip(samples, leaders)]


def split_by_groups(
    samples: Sequence[Sample],
    classes: int,
    root: Path,
    seed: int,
    findings: Findings,
    shares: Mapping[str, float] = SHARES,
    groups_by: GroupsBy = "auto",
) -> dict[str, list[Sample]]:
    """Assign whole groups to splits in these shares, and every class as well as the groups allow.

    No split stays empty while another has two groups. Deterministic: depends on the pictures' bytes and the
    seed, not on names, order or place. Few groups (fewer than three per split) are given up and pictures
    split one by one, which is a finding. `groups_by`: "auto" looks at every picture, "name" goes by names and
    identical bytes only (a tenth of the time), "off" splits picture by picture.
    """
    if groups_by == "off":
        samples = [replace(sample, group=relative_name(sample.path, root)) for sample in samples]
    else:
        samples = grouped(samples, root, look=groups_by == "auto")
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        members[sample.group].append(sample)
    groups = list(members.values())
    if len(groups) < 3 * len(shares) <= len(samples):
        findings.add("data_split_no_groups", root, groups=len(groups))
        groups = [[sample] for sample in samples]

    counts = np.array([_presence(group, classes) for group in groups]).reshape(len(groups), classes + 1)
    lots = [_lot(group, seed) for group in groups]
    placed = _place(counts, list(shares.values()), lots)
    position = {sample.path: index for index, sample in enumerate(samples)}
    return {
        name: sorted(
            (sample for index in found for sample in groups[index]), key=lambda sample: position[sample.path]
        )
        for name, found in zip(shares, placed)
    }


def _place(counts_GC: NDArray[np.float64], shares: Sequence[float], lots: Sequence[str]) -> list[list[int]]:
    """Which groups go to which split: greedily, the one that brings the counts nearest to the shares.

    `counts_GC`: pictures per group and class, the last column all pictures.
    """
    total = counts_GC.sum(axis=0)
    weight = 1 / np.maximum(total, 1)
    wanted = np.array([[share] for share in shares]) * total
    # big groups first, they are the hardest to place; among equals by lot
    order = sorted(range(len(lots)), key=lambda index: (-(counts_GC[index] * weight).sum(), lots[index]))
    placed: list[list[int]] = [[] for _ in shares]
    for index in order:
        count = counts_GC[index]
        # what the group takes off the chi-square distance to the wanted counts
        gain = ((2 * wanted - count) * count * weight).sum(axis=1) / shares
        best = int(gain.argmax())
        wanted[best] -= count
        placed[best].append(index)
    for empty in (found for found in placed if not found):  # so few groups that one share came to nothing
        donor = max(placed, key=len)
        if len(donor) < 2:
            break
        alone = counts_GC[donor].sum(axis=0)

        def loss(index: int, alone: NDArray[np.float64] = alone) -> tuple[int, float, str]:
            """How many classes the donor would lose, how many pictures."""
            count = counts_GC[index]
            return int(((count > 0) & (count == alone)).sum()), float(count[-1]), lots[index]

        spare = min(donor, key=loss)
        donor.remove(spare)
        empty.append(spare)
    return placed


def _presence(group: Sequence[Sample], classes: int) -> NDArray[np.float64]:
    """How many pictures of the group hold each class, and how many pictures; shape (classes + 1,)."""
    present = np.zeros(classes + 1)
    for sample in group:
        present[np.unique(sample.labels_N)] += 1
    present[-1] = len(group)
    return present


def _lot(group: Sequence[Sample], seed: int) -> str:
    return hashlib.sha256(f"{seed} {min(sample.digest for sample in group)}".encode()).hexdigest()
