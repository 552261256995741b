"""Runs and versions side by side."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from starlette.responses import FileResponse

from smartcash.ui.routes.config import Here, Language
from smartcash.ui.words import shown

router = APIRouter(tags=["compare"])


@router.get("/compare")
def compare(
    studio: Here,
    language: Language,
    runs: Annotated[str, Query(max_length=2000)],
    split: Literal["", "train", "valid", "test"] = "",
    data: Annotated[str, Query(max_length=4000, pattern=r"^[^\x00]*$")] = "",
) -> Response:
    """What differs between runs or versions: configuration, data, curves, figures with intervals, pictures. What has to
    be computed is computed in a worker: ask again while `judged.state` is "working"."""
    names = [studio.known(name) for name in runs.split(",") if name]
    return shown(studio.comparisons.compare(names, split=split, data=data, language=language))


@router.get("/compare/{key}/{file}")
def picture(key: str, file: str, studio: Here) -> Response:
    """One of the pictures that a comparison shows."""
    path = studio.comparisons.picture(key, file)
    return FileResponse(path, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})
