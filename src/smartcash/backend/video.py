"""Moving pictures: the frames of a file or a camera, and a file made of frames. RGB uint8, upright as OpenCV turns it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2

from smartcash.backend.images import Pixels
from smartcash.domain.errors import DataInvalid
from smartcash.utils.files import fsync_folder

SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp"}
USUAL_FRAMES_PER_S = 25.0  # for a camera that does not say
Source = Path | int  # a file, or the number of a camera


@dataclass(frozen=True)
class Frame:
    """`number` counts from 0, frames that were left out included; `time_s`: since the first."""

    number: int
    time_s: float
    image_HW3: Pixels


def is_video(path: Path) -> bool:
    """Whether `path` is named like a video."""
    return path.suffix.lower() in SUFFIXES


class Video:
    """`with Video(source) as video: for frame in video.frames(): …`.

    Raises DataInvalid for a file that holds no video that can be read, and for a camera that is not there."""

    def __init__(self, source: Source) -> None:
        self.is_camera = isinstance(source, int)
        # a file is opened as a file: as a mere text, OpenCV would also take addresses and patterns
        self._capture = cv2.VideoCapture(source) if self.is_camera else _opened(Path(source))
        if not self._capture.isOpened():
            self._capture.release()
            code = "camera_missing" if self.is_camera else "video_unreadable"
            raise DataInvalid(code, path=str(source))
        self._name = str(source)
        told = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_s = told if 0 < told <= 1000 else USUAL_FRAMES_PER_S

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every `every`-th frame, until the end. Raises DataInvalid for a file without a single one."""
        number, began = 0, time.monotonic()
        while self._capture.grab():
            if number % every == 0:
                told_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                time_s = time.monotonic() - began if self.is_camera else told_s
                whole, image = self._capture.retrieve()
                if not whole:
                    break
                yield Frame(number, round(time_s, 3), cv2.cvtColor(image, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
            number += 1
        if not number:
            raise DataInvalid("video_unreadable", path=self._name)


def _opened(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise DataInvalid("video_unreadable", path=str(path))
    return cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)


class VideoFile:
    """An MP4 made of frames, all as large as the first. It bears its name when it is closed, and not before; without
    a frame there is none."""

    def __init__(self, path: Path, frames_per_s: float) -> None:
        self.path, self.frames_per_s = path, frames_per_s
        self._partial = path.with_name(f".{path.stem}.partial.mp4")
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was seen until an interruption is kept."""
        if self._writer is not None:
            self._writer.release()
            self._partial.replace(self.path)
            fsync_folder(self.path.parent)

    def write(self, image_HW3: Pixels) -> None:
        """Add a frame. Raises OSError when the file cannot be written."""
        if self._writer is None:
            size = image_HW3.shape[1], image_HW3.shape[0]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), cv2.CAP_FFMPEG, code, self.frames_per_s, size)
            if not self._writer.isOpened():
                raise OSError(f"OpenCV cannot write {self.path}")
        self._writer.write(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR))
