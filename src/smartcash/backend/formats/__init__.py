"""Data sets in every common format, read into one form and cleaned, with a report of everything strange.

    data = read_dataset("notes/")        # YOLO, COCO, Pascal VOC, a folder per class, or a zip of them
    data.splits["train"][0].boxes_N4     # float32 xyxy, px of the upright picture
    data.report.of("error", "warning")   # what was found, where, and what was done about it

To add a format, add a file to `formats/known`.
"""

from smartcash.backend.formats.known import FORMATS
from smartcash.backend.formats.model import (
    SPLITS,
    DataSet,
    Finding,
    Format,
    Report,
    Sample,
    Task,
    count_boxes,
    facts_of,
    task_named,
)
from smartcash.backend.formats.reading import read_dataset, verify_images
from smartcash.backend.formats.splitting import shares_of
from smartcash.backend.formats.writing import resplit, write_dataset

__all__ = [
    "FORMATS",
    "SPLITS",
    "DataSet",
    "Finding",
    "Format",
    "Report",
    "Sample",
    "Task",
    "count_boxes",
    "facts_of",
    "read_dataset",
    "resplit",
    "shares_of",
    "task_named",
    "verify_images",
    "write_dataset",
]
