"""Near-duplicates: the same shot again, a little later, brighter, recompressed or resized.

Two 64-bit difference hashes of a picture (along rows and columns; brightness and contrast do not touch
them) find candidates: at most 7 bits apart in one of them, so that of its 8 bytes at least one is equal and
only pictures that share a byte are compared. A candidate counts when the edges of both, at 48 × 48, correlate
by 0.80 or more. On 750 Rupiah photos grouped with care this joins 93 % of the pairs that belong together;
the largest group then has 18 pictures (hashes alone, at 10 bits, join different notes by the hundred).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from smartcash.backend.images import decode_image, is_complete, read_bytes, read_header

MAX_BITS = 7
MIN_CORRELATION = 0.80
_EDGE_SIDE = 48
_BLOCK = 256  # rows of a bucket compared at a time
_PAIRS = 4096  # candidates verified at a time


def near_duplicates(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """Pairs of indices (i < j) of pictures that look alike. The pictures must be readable."""
    if len(paths) < 2:
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes, edges = zip(*pool.map(look, paths))
    hashes_N28 = np.stack(hashes)
    edges_ND = np.stack(edges)
    for one, other in _candidates(hashes_N28):
        for start in range(0, len(one), _PAIRS):
            i, j = one[start : start + _PAIRS], other[start : start + _PAIRS]
            correlation = np.einsum(
                "nd,nd->n", edges_ND[i].astype(np.float32), edges_ND[j].astype(np.float32)
            )
            alike = correlation >= MIN_CORRELATION
            yield from zip(i[alike].tolist(), j[alike].tolist())


def look(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """(row hash and column hash as bytes, shape (2, 8); normalised edge strength, shape (2304,))."""
    gray = _small_gray(path)
    rows = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    columns = cv2.resize(gray, (8, 9), interpolation=cv2.INTER_AREA)
    bits = np.stack([(rows[:, 1:] > rows[:, :-1]).ravel(), (columns[1:] > columns[:-1]).ravel()])
    small = cv2.resize(gray, (_EDGE_SIDE, _EDGE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    edges = np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)).ravel()
    edges -= edges.mean()
    return np.packbits(bits, axis=1), (edges / (np.linalg.norm(edges) + 1e-6)).astype(np.float16)


def _small_gray(path: Path) -> NDArray[np.uint8]:
    """The picture in grey; an ordinary JPEG is decoded at a fraction of its size, which is 3–6 × faster."""
    data = read_bytes(path)
    header = read_header(data, path)
    fraction = min(header.stored) // (2 * _EDGE_SIDE)
    if header.plain and header.kind == "JPEG" and fraction >= 2 and is_complete(data, header):
        flag = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}
        reduced = flag.get(2 if fraction < 4 else 4 if fraction < 8 else 8, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), reduced)
        if image is not None:
            return image  # type: ignore[return-value]
    return cv2.cvtColor(decode_image(data, path), cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def _candidates(hashes_N28: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Index arrays (i, j), i < j, of pairs at most MAX_BITS apart in one hash; each pair once per hash."""
    for kind in range(hashes_N28.shape[1]):
        codes = np.ascontiguousarray(hashes_N28[:, kind])
        words = codes.view(np.uint64)[:, 0]
        for band in range(codes.shape[1]):
            order = np.argsort(codes[:, band], kind="stable")
            starts = np.flatnonzero(np.diff(codes[order, band])) + 1
            for bucket in np.split(order, starts):
                for top in range(0, len(bucket) - 1, _BLOCK):
                    rows, rest = bucket[top : top + _BLOCK], bucket[top:]
                    close = np.bitwise_count(words[rows, None] ^ words[None, rest]) <= MAX_BITS
                    places, others = np.nonzero(close)
                    i, j = rows[places], rest[others]
                    first = (codes[i, :band] != codes[j, :band]).all(axis=1)  # no earlier band had the pair
                    keep = first & (i < j)
                    yield i[keep], j[keep]
