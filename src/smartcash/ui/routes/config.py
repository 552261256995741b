"""The configuration: what the form is made of, checking, confirming."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from smartcash.domain.changes import SIGNIFICANT
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, NotConfirmed
from smartcash.handlers.training_manager import Review
from smartcash.services.run_store import RunFolder
from smartcash.ui.problems import REVIEWED, ReviewNeeded, pointer
from smartcash.ui.studio import Studio, language_of, studio_of
from smartcash.ui.words import changes_json, review_json, shown
from smartcash.utils.i18n import catalogue, text

router = APIRouter(tags=["config"])
Here = Annotated[Studio, Depends(studio_of)]
Language = Annotated[str, Depends(language_of)]

PRESETS: dict[str, dict[str, Any]] = {
    "standard": {},
    "quick": {"data": {"image_size": 224}, "training": {"epochs": 6}},
    "thorough": {
        "data": {"image_size": 320},
        "training": {"epochs": 48, "early_stopping": {"patience": 12}},
        "augment": {"preset": "strong"},
    },
    "frugal": {"data": {"batch_size": 4, "image_size": 224, "cache": "off"}, "runtime": {"threads": 1}},
}
DEEPEST = 12
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


class Asked(BaseModel):
    """`values`: sections and fields as in the YAML file; what is absent takes its default. `run`: the run that would
    go on with them, none for a new one."""

    model_config = ConfigDict(extra="forbid")
    values: dict[str, Any]
    run: str = Field(default="", max_length=200)

    @field_validator("values")
    @classmethod
    def _not_deep(cls, values: dict[str, Any]) -> dict[str, Any]:
        if _depth(values) > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST}")
        return values


class Confirmed(Asked):
    """`confirm_token`: the one of the review; `significant`: the second confirmation."""

    confirm_token: str = Field(default="", max_length=200)
    significant: bool = False


@router.get("/config")
def read(studio: Here) -> Response:
    """The configuration last confirmed, or the defaults."""
    config, revision = studio.manager.confirmed()
    etag = etag_of(revision)
    return shown({"config": config.model_dump(mode="json"), "etag": etag}, etag=etag)


@router.get("/config/schema")
def schema(language: Language) -> Response:
    """What a form needs: the JSON Schema, the defaults, and each field with its help."""
    form = {
        "schema": TrainConfig.model_json_schema(),
        "defaults": TrainConfig().model_dump(mode="json"),
        "fields": [
            {**facts, "text": catalogue(language)[f"config.{facts['field']}"]} for facts in form_fields()
        ],
    }
    return shown(form)


@router.get("/config/presets")
def presets(language: Language) -> Response:
    """Starting points for people who do not want to choose everything."""
    rows = [
        {
            "name": name, "values": values, "title": text(f"presets.{name}.title", language),
            "text": text(f"presets.{name}.text", language),
        }
        for name, values in PRESETS.items()
    ]  # fmt: skip
    return shown({"presets": rows})


@router.post("/config/check")
def check(asked: Asked, studio: Here, language: Language) -> Response:
    """Every problem and every change, and the token that confirms exactly these. Changes nothing."""
    review = studio.manager.check(read_numbers(asked.values), run=_folder(studio, asked.run))
    return shown(review_json(review, etag_for(studio, asked.run), language))


@router.put("/config", dependencies=[REVIEWED])
def confirm(
    confirmed: Confirmed,
    studio: Here,
    language: Language,
    if_match: Annotated[str, Header()] = "",
) -> Response:
    """Confirm a configuration, for the next run or for the one that goes on. It is recorded."""
    etag = etag_for(studio, confirmed.run)
    review = studio.manager.check(read_numbers(confirmed.values), run=_folder(studio, confirmed.run))
    if not if_match:
        raise ReviewNeeded(review_json(review, etag, language), "precondition_missing")
    if if_match.removeprefix("W/") != etag:
        raise NotConfirmed("config_stale")
    require_confirmation(review, confirmed.confirm_token, etag, language)
    if confirmed.run:
        studio.manager.apply(review, confirmed.confirm_token, significant=confirmed.significant)
    else:
        studio.manager.confirm(review, confirmed.confirm_token, significant=confirmed.significant)
    assert review.config is not None
    etag = etag_for(studio, confirmed.run)
    changes = changes_json(review.changes, language)
    config = review.config.model_dump(mode="json")
    return shown({"config": config, "etag": etag, "changes": changes}, etag=etag)


def require_confirmation(review: Review, token: str, etag: str, language: str) -> None:
    """Raises ConfigInvalid for what cannot be confirmed, ReviewNeeded where a token is missing."""
    if review.config is None or review.problems:
        raise ConfigInvalid(review.problems)
    if review.changes and not token:
        raise ReviewNeeded(review_json(review, etag, language))


def _folder(studio: Studio, run: str) -> RunFolder | None:
    return studio.folder(run) if run else None


def etag_of(revision: str) -> str:
    return f'"{revision}"'


def etag_for(studio: Studio, run: str) -> str:
    """What a change replaces: the configuration of a run, else the one last confirmed."""
    if run:
        return etag_of(studio.folder(run).config().hash())
    return etag_of(studio.manager.confirmed()[1])


def _depth(value: Any) -> int:
    """How many lists and objects lie in one another; without recursion, whatever is sent."""
    depth, level = 0, [value]
    while level := [inner for each in level for inner in _inside(each)]:
        depth += 1
    return depth


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def read_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with what was typed into a number's field as a number: `0,001` and `0.001` alike."""
    kinds = {facts["field"]: facts["kind"] for facts in form_fields()}
    return _read_section(values, kinds, "")


def _read_section(values: Mapping[str, Any], kinds: Mapping[str, str], prefix: str) -> dict[str, Any]:
    read_values: dict[str, Any] = {}
    for name, value in values.items():
        field = f"{prefix}{name}"
        if isinstance(value, Mapping) and field not in kinds:
            read_values[name] = _read_section(value, kinds, f"{field}.")
        elif isinstance(value, str) and kinds.get(field) in ("number", "integer"):
            read_values[name] = _read_number(value)
        else:
            read_values[name] = value
    return read_values


def _read_number(typed: str) -> Any:
    """What is no number stays as it is: the check names it."""
    words = typed.strip()
    if _COMMA.fullmatch(words):
        words = words.replace(",", ".")
    if not _NUMBER.fullmatch(words):
        return typed
    number = float(words)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


@cache
def form_fields() -> tuple[dict[str, Any], ...]:
    """Each field of the configuration, in order, with what a form has to know of it."""
    whole = TrainConfig.model_json_schema()
    return tuple(_fields(whole, whole.get("$defs", {}), ""))


def _fields(section: Mapping[str, Any], parts: Mapping[str, Any], prefix: str) -> Iterator[dict[str, Any]]:
    for name, described in section["properties"].items():
        field = f"{prefix}{name}"
        if "$ref" in described:
            yield from _fields(parts[described["$ref"].rpartition("/")[2]], parts, f"{field}.")
            continue
        forms = described.get("anyOf", [described])
        kinds = [form.get("type") for form in forms if "const" not in form and form.get("type") != "null"]
        limits = {key: value for form in forms for key, value in form.items() if key.lower().endswith("imum")}
        choices = next((form["enum"] for form in forms if "enum" in form), None)
        yield {
            "field": field, "pointer": pointer(field), "group": field.partition(".")[0] if "." in field else "",
            "kind": "choice" if choices else {"string": "text", "array": "list"}.get(str(kinds[0]), kinds[0]),
            "choices": choices, "auto": any(form.get("const") == "auto" for form in forms),
            "nullable": any(form.get("type") == "null" for form in forms), "default": described.get("default"),
            "minimum": limits.get("minimum"), "exclusive_minimum": limits.get("exclusiveMinimum"),
            "maximum": limits.get("maximum"), "exclusive_maximum": limits.get("exclusiveMaximum"),
            "significant": SIGNIFICANT.get(field, ""),
        }  # fmt: skip
