"""Errors as RFC 9457 says: problem+json with a stable code, its facts, and the words in the reader's language."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from smartcash.domain import errors
from smartcash.domain.errors import NotConfirmed, Problem, SmartCashError
from smartcash.services.event_log import finite
from smartcash.services.workbench import Refusal
from smartcash.ui.studio import language_of
from smartcash.utils.files import UNWRITABLE, reason_of
from smartcash.utils.i18n import catalogue, text

# the first that fits
STATUSES: tuple[tuple[type[SmartCashError], int], ...] = (
    (errors.ConfigInvalid, 422),
    (errors.DataInvalid, 422),
    (errors.WeightsUnavailable, 422),
    (errors.BackboneUnknown, 422),
    (errors.ExportRefused, 422),
    (errors.LabelsRefused, 422),
    (errors.ComparisonRefused, 422),
    (Refusal, 422),
    (errors.RunNotFound, 404),
    (errors.VersionNotFound, 404),
    (errors.CheckpointNotFound, 404),
    (errors.WorkbenchFailed, 503),
    (errors.OperationLogFailed, 503),
    (errors.CheckpointWriteFailed, 503),
    (SmartCashError, 409),
)
BY_CODE = {
    "alias_unknown": 404, "config_stale": 412, "unconfirmed": 428, "significant_unconfirmed": 428,
    "version_unconfirmed": 428, "precondition_missing": 428, "too_large": 413, "config_invalid": 422,
    "upload_above_room": 413, "upload_stalled": 408, "samples_above_room": 503, "data_set_unwritable": 503,
    "split_above_room": 503, "data_set_exists": 409,
}  # fmt: skip
HTTP_CODES = {400: "request_broken", 404: "not_found", 405: "method_refused"}
DISK_TROUBLE = UNWRITABLE | {errno.EIO}


class ReviewNeeded(NotConfirmed):
    """A change that has to be confirmed first. `review`: what would change and the token, for the page to show.

    Whoever asks for it (`?review=1`) gets it as the answer; for anybody else it is a refusal."""

    def __init__(self, review: Mapping[str, Any], code: str = "unconfirmed") -> None:
        super().__init__(code)
        self.review = review


def _wishes_review(
    request: Request,
    review: Annotated[
        bool, Query(description="Answer what would change with 200 instead of refusing it with 428.")
    ] = False,
) -> None:
    request.state.review_wished = review


REVIEWED = Depends(_wishes_review)  # of every operation that may raise ReviewNeeded


def add_problems(app: FastAPI) -> None:
    """Have every error of the application answered as a problem."""

    @app.exception_handler(SmartCashError)
    def _refused(request: Request, error: SmartCashError) -> Response:
        return response_to(error, language_of(request))

    @app.exception_handler(ReviewNeeded)
    def _to_confirm(request: Request, error: ReviewNeeded) -> Response:
        if error.code == "unconfirmed" and request.state.review_wished:
            return Response(json.dumps({"review": error.review}), media_type="application/json")
        return response_to(error, language_of(request))

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        language = language_of(request)
        found = [_request_problem(item) for item in error.errors()]
        return _answer(422, "request_invalid", {"count": len(found)}, language, problems=found)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        code = HTTP_CODES.get(error.status_code, "request_broken")
        answer = _answer(error.status_code, code, {}, language_of(request))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(OSError)
    def _disk(request: Request, error: OSError) -> Response:
        if error.errno not in DISK_TROUBLE:
            raise error
        facts = {"place": str(error.filename or ""), "reason": reason_of(error)}
        return _answer(503, "disk", facts, language_of(request))


def response_to(error: SmartCashError, language: str) -> Response:
    """A SmartCashError as a response."""
    more: dict[str, Any] = {}
    if isinstance(error, ReviewNeeded):
        more["review"] = error.review
    listed = [each for each in error.as_problems() if each.field]
    facts = {key: value for key, value in error.facts.items() if key != "count"}
    status = BY_CODE.get(error.code) or next(number for kind, number in STATUSES if isinstance(error, kind))
    detail = error.message(language)
    return _answer(status, error.code, facts, language, detail=detail, problems=listed, **more)


def problem_json(problem: Problem, language: str) -> dict[str, Any]:
    """One problem of a configuration, with the JSON pointer of its field."""
    known = problem.code if "." in problem.code else f"problems.{problem.code}"
    message = problem.message(language) if known in catalogue(language) else problem.code
    return {
        "pointer": pointer(problem.field), "field": problem.field, "code": problem.code,
        "value": _plain(problem.value), "params": _plain(problem.facts), "message": message,
    }  # fmt: skip


def pointer(field: str) -> str:
    """`optimizer.lr` as a JSON pointer (RFC 6901)."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in field.split("."))


def _request_problem(item: Mapping[str, Any]) -> Problem:
    field = ".".join(str(part) for part in item["loc"])
    return Problem(field, "value_wrong", _plain(item.get("input")), {"reason": item["msg"]})


def _answer(
    status: int, code: str, facts: Mapping[str, Any], language: str, *, detail: str = "",
    problems: list[Problem] | None = None, **more: Any,
) -> Response:  # fmt: skip
    detail = detail or text(f"errors.{code}", language, **facts)
    body = {
        "type": "about:blank", "status": status, "code": code, "title": detail.partition("\n")[0][:200],
        "detail": detail, "params": _plain(facts), **more,
    }  # fmt: skip
    if problems:
        body["problems"] = [problem_json(each, language) for each in problems]
    return Response(json.dumps(body), status, media_type="application/problem+json")


def _plain(value: Any) -> Any:
    """The same as plain JSON values: facts are, but what a request holds may be anything."""
    return json.loads(json.dumps(finite(value), default=str))
