"""A served model: batches, and an alias that moves under load."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smartcash.backend.predictor import Prepared
from smartcash.domain.errors import DataInvalid, ServingRefused, VersionNotFound
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder
from smartcash.worker.models import open_model
from smartcash.worker.serving import POLL_S, ServedModel

MOVES = 50


def noise(seed: int, width: int = 90, height: int = 70) -> bytes:
    """The bytes of a PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_many_who_ask_at_once_get_what_each_would_get_alone(
    home: Path, real: Callable[[int], RunFolder]
) -> None:
    """D15: in batches; the last digits may differ, which note and where may not."""
    ModelVersions(home).register_run(real(1))
    alone = open_model("v1", "cpu")[0]
    model = ServedModel("v1", device="cpu", max_batch=4, max_wait_ms=50)
    pictures = [noise(seed, 60 + seed, 90 - seed) for seed in range(12)]
    asked: dict[int, Any] = {}

    def ask(number: int) -> None:
        asked[number] = model.predict(pictures[number], threshold=0.3).result(30)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = model.state()
    assert (state.pictures, state.waiting) == (12, 0) and 3 <= state.batches <= 12
    for number, picture in enumerate(pictures):
        wanted = alone.predict(np.asarray(Image.open(io.BytesIO(picture))), 0.3)
        assert asked[number]["picture"] == {"width_px": 60 + number, "height_px": 90 - number}
        assert asked[number]["total_rupiah"] == wanted["total_rupiah"]
        for found, row in zip(asked[number]["found"], wanted["found"], strict=True):
            assert found["class"] == row["class"] and abs(found["score"] - row["score"]) < 0.01
    count = model.count(pictures[0]).result(30)
    assert count["counts"] == alone.count(np.asarray(Image.open(io.BytesIO(pictures[0]))))["counts"]
    model.close()


def test_what_is_no_picture_or_too_large_is_refused_before_it_is_decoded(
    home: Path, outspoken: Callable[[int], RunFolder]
) -> None:
    """B29, and nobody behind it waits in vain; a network that breaks fails those who asked it, not the next."""
    version = ModelVersions(home).register_run(outspoken(1))
    with pytest.raises(VersionNotFound):
        ServedModel("produksi")
    model = ServedModel("v1", device="cpu", max_pixels=100 * 100)
    with pytest.raises(DataInvalid):
        model.predict(b"no picture")
    with pytest.raises(ServingRefused) as refused:
        model.predict(noise(0, 101, 100))
    assert refused.value.facts["limit"] == 0.0
    broken = Prepared(np.zeros((3, 3, 3), np.uint8), (3, 3), 0.5)
    whole, model._prepared = model._prepared, lambda *_: broken  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError):
        model.predict(noise(0)).result(30)
    model._prepared = whole  # type: ignore[method-assign]
    assert {row["class"] for row in model.predict(noise(0)).result(30)["found"]} == {version.classes[1]}
    model.close()


def test_a_run_is_served_as_the_version_that_was_made_of_it(
    home: Path, outspoken: Callable[[int], RunFolder]
) -> None:
    """D15, B18: as every other command finds a version; a run of which none was made says how to make one."""
    versions, run = ModelVersions(home), outspoken(1)
    with pytest.raises(VersionNotFound) as refused:
        ServedModel(run.id)
    assert refused.value.code == "version_of_run_none"
    versions.register_run(run)
    for name in (run.id, "latest", "1"):
        model = ServedModel(name, device="cpu")
        assert model.name == "v1" and model.state().version == "v1"
        model.close()


def test_an_alias_that_moves_to_a_damaged_version_leaves_the_old_one_answering(
    home: Path, outspoken: Callable[[int], RunFolder]
) -> None:
    """A17, B18: and says why; when it moves on to a whole one, that one answers."""
    versions = ModelVersions(home)
    classes = [versions.register_run(outspoken(label)).classes[label] for label in range(3)]
    versions.apply(versions.check_promote(1, "produksi"))
    model = ServedModel("produksi", device="cpu")
    versions.apply(versions.check_promote(2, "produksi"))
    until(lambda: model.state().version == "v2")
    versions.apply(versions.check_promote(3, "produksi"))
    with (home / "models/v3/model.pth").open("r+b") as file:  # between the promotion and the reading
        file.write(b"damage")
    until(lambda: model.state().version == "v3" or bool(model.state().trouble))
    if model.state().version == "v3":
        pytest.skip("it was read before it was damaged")
    answer = model.predict(noise(0)).result(30)
    assert answer["model"]["version"] == "v2" and {row["class"] for row in answer["found"]} == {classes[1]}
    versions.apply(versions.check_rollback("produksi", to=1), significant=True)
    until(lambda: model.state().version == "v1")
    until(lambda: not model.state().trouble, 5 * POLL_S + 5)
    model.close()


@pytest.mark.slow
def test_an_alias_rolled_back_fifty_times_under_load_answers_from_one_version_each_time_and_never_fails(
    home: Path, outspoken: Callable[[int], RunFolder]
) -> None:
    """A17, D5: a real server and four who ask without a pause; each version says another class of every picture."""
    versions = ModelVersions(home)
    known = {}
    for label in range(3):
        version = versions.register_run(outspoken(label))
        known[version.name] = (version.sha256, version.classes[label])
        versions.apply(versions.check_promote(version.number, "produksi"))
    server = subprocess.Popen(
        [sys.executable, "-m", "smartcash", "serve", "produksi", "--port", "0", "--device", "cpu", "--lang", "en"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "SMARTCASH_HOME": str(home)},
    )  # fmt: skip
    assert server.stdout is not None
    port = int(server.stdout.readline().rpartition(":")[2])
    over, trouble, seen = threading.Event(), [], Counter()  # type: ignore[var-annotated]

    def load(seed: int) -> None:
        picture = noise(seed)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            while not over.is_set():
                connection.request("POST", "/predict", picture, {"content-type": "image/png"})
                answer = connection.getresponse()
                facts = json.loads(answer.read())
                if answer.status != 200:
                    trouble.append(facts)
                    return
                model, classes = facts["model"], {row["class"] for row in facts["found"]}
                sha256, label = known[model["version"]]
                named = answer.headers["x-smartcash-version"]
                if (model["sha256"], classes, named) != (sha256, {label}, model["version"]):
                    trouble.append(facts)
                seen[model["version"]] += 1

    def serves(number: int) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/health")
            return bool(json.loads(connection.getresponse().read())["version"] == f"v{number}")

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
    try:
        for thread in threads:
            thread.start()
        chosen, now = random.Random(5), 3
        for _ in range(MOVES):
            now = chosen.choice([number for number in (1, 2, 3) if number != now])
            versions.apply(versions.check_rollback("produksi", to=now), significant=True)
            if chosen.random() < 0.5:  # the others come while the one before is being loaded
                until(partial(serves, now), 60)
        until(partial(serves, now), 60)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        server.send_signal(signal.SIGINT)
        code = server.wait(30)
        server.stdout.close()
    assert trouble == []
    assert set(seen) == set(known) and seen.total() > MOVES, seen
    assert code == 0, "Ctrl-C is how it ends"
