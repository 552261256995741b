"""The page that runs an exported ONNX file in a browser, in Chromium (A19, D11)."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from smartcash.backend.exporters import FORMATS, open_export
from smartcash.backend.exporters.gate import LIMITS, Differences, squares
from smartcash.backend.images import read_image, write_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.exports import ExportRequest

from .conftest import needs
from .test_exports import EXAMPLES, Drawn, exported, run_example

WEB = EXAMPLES / "web"
# what the chosen files give, without the page around it
ASK = """async () => {
  const { opened, pixels, asked } = await import("./onnx_web.js");
  const [model, picture] = ["model", "picture"].map((name) => document.getElementById(name).files[0]);
  const { images, outputs, notes } = await asked(await opened(model), await pixels(picture));
  const plain = Object.entries(outputs).map(([name, values]) => [name, Array.from(values, Number)]);
  return { images: Array.from(images), outputs: Object.fromEntries(plain), notes };
}"""
PREPARE = """async ([pixels, width, height, about]) => {
  const { prepared } = await import("./notes.js");
  return Array.from(prepared(new ImageData(new Uint8ClampedArray(pixels), width, height), about)[0]);
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A copy of the page's folder, and the address at which a plain file server gives it out."""
    folder = tmp_path_factory.mktemp("web") / "web"
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("node_modules"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def address(served: tuple[Path, str]) -> str:
    """The address of the page with its runtime, which npm fetches."""
    folder, address = served
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm: install Node.js")
    fetched = subprocess.run(
        [npm, "ci", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch onnxruntime-web: {fetched.stderr.strip()[-200:]}")
    return address


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in Indonesian, or in the language that the test is parametrised with."""
    context = browser.new_context(locale=getattr(request, "param", "id-ID"))
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert errors == []


@pytest.fixture
def wide(picture: Path, tmp_path: Path) -> Path:
    """A picture that the letterbox has to shrink and to pad."""
    path = tmp_path / "wide.png"
    write_image(path, cv2.resize(read_image(picture), (300, 200)))
    return path


@pytest.mark.parametrize(
    ("size", "resize"),
    [((301, 170), "letterbox"), ((50, 31), "letterbox"), ((96, 96), "letterbox"), ((64, 201), "stretch")],
)
def test_the_page_prepares_a_picture_as_the_training_does(
    size: tuple[int, int], resize: Any, served: tuple[Path, str], page: Page
):
    """D11: shrunk, enlarged, as it is, and both at once; to one step of the 256, which rounding may cost."""
    preprocess = Preprocess(96, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), resize)
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    about = {"input": {"shape": ["batch", 3, 96, 96], "preprocess": preprocess.to_dict()}}
    opaque = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).ravel().tolist()
    page.goto(served[1] + "/package.json")
    found = page.evaluate(PREPARE, [opaque, *size, about])
    assert steps_apart(np.reshape(found, (1, 3, 96, 96)), squares(preprocess, [image]), preprocess) <= 1.01


def steps_apart(one: np.ndarray, other: np.ndarray, preprocess: Preprocess) -> float:
    """The largest difference of two inputs in steps of 8 bits."""
    return float((np.abs(one - other) * np.reshape(preprocess.std, (3, 1, 1)) * 255).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("trained", ExportRequest("onnx")),
        ("trained", ExportRequest("onnx", nms=True, batch=2)),
        ("classifier", ExportRequest("onnx")),
    ],
    ids=["plain", "nms", "classify"],
)
def test_the_browser_says_what_onnx_runtime_says(
    model: str,
    asked: ExportRequest,
    drawn: Drawn,
    address: str,
    page: Page,
    wide: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
):
    """A19, D11: the same input from the same picture, the same outputs for it within the gate's own limits, and the
    notes that the example in Python finds, on the page with their value and their sum."""
    needs("onnx")
    predictor: Predictor = request.getfixturevalue(model)
    target = tmp_path / "notes.onnx"
    assert exported(predictor, drawn, target, asked).proof.state == "verified"
    page.goto(address)
    if asked.nms:
        page.set_input_files("#model", target)
        expect(page.get_by_role("status")).to_contain_text("96 px", timeout=60_000)
        page.set_input_files("#picture", wide)
    else:  # the picture is read before the model, which takes longer to open
        held: list[Route] = []
        page.route("**/*.wasm", lambda route: held.append(route))
        with page.expect_request("**/*.wasm"):
            page.set_input_files("#model", target)
        page.set_input_files("#picture", wide)
        page.wait_for_timeout(500)
        assert held
        for request_of_runtime in held:
            request_of_runtime.continue_()
        page.unroute("**/*.wasm")
    expect(page.locator("#answer")).to_be_visible(timeout=60_000)
    answer = page.evaluate(ASK)

    images = np.float32(answer["images"]).reshape(asked.batch or 1, 3, 96, 96)
    given = squares(predictor.preprocess, [read_image(wide)])
    assert steps_apart(images, given, predictor.preprocess) <= 1.01
    ours = open_export(target, FORMATS["onnx"], 1)(images)
    theirs = {name: np.reshape(answer["outputs"][name], values.shape) for name, values in ours.items()}
    differences = Differences()
    differences.add(ours, theirs)
    assert differences.asked and not differences.exceeded(LIMITS["fp32"])

    wanted = run_example("onnx", target, wide)
    assert [note["class"] for note in answer["notes"]] == [note["class"] for note in wanted] != []
    for note, other in zip(answer["notes"], wanted):
        assert note["value"] == other["value"]
        assert note["score"] == pytest.approx(other["score"], abs=0.01)
        assert note["box"] == pytest.approx(other["box"], abs=1)
    rows = [row.split("\t") for row in page.locator("#notes").inner_text().splitlines()]
    assert [row[0] for row in rows] == ["Kelas", *(note["class"] for note in wanted), "Jumlah"]
    total = sum(note["value"] for note in wanted)
    assert "".join(filter(str.isdigit, rows[-1][1])) == str(total) and rows[-1][1].startswith("Rp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("id-ID", ("bukan berkas ONNX", "tidak dapat dibuka")),
        ("en-GB", ("is no ONNX file", "cannot be opened")),
    ],
    indirect=["page"],
)
def test_the_page_names_a_file_that_it_cannot_use(
    words: tuple[str, str], address: str, page: Page, tmp_path: Path
):
    """A33, A34: a model of someone else, and what is no picture; in the browser's language."""
    page.goto(address)
    for place, name, said in zip(("#model", "#picture"), ("foreign.onnx", "broken.png"), words):
        (tmp_path / name).write_bytes(b"\x08\x07no such file")
        page.set_input_files(place, tmp_path / name)
        expect(page.get_by_role("alert")).to_contain_text(f"{name} {said}")
    expect(page.locator("#answer")).to_be_hidden()


def test_the_program_of_the_page_is_as_short_as_the_others():
    """A19."""
    assert len((WEB / "onnx_web.js").read_text(encoding="utf-8").splitlines()) <= 40
