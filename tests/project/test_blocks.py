"""Every code block of README and documentation does what it says, in both languages (A33).

`sh`: every line is understood, by SmartCash's own commands, the Makefile or pyproject.toml. `python` is run on toy
data, `yaml` is a configuration. A `diff`, or a `python` that begins with the name of a file of the source, changes a
copy of the source, which then does what the page says. `text` shows folders and output and is no code. What is not run
says why, in a comment just before that no reader sees: `<!-- not run: needs a GPU -->`.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import torch
from benchmarks.__main__ import NAMES as BENCHMARKS
from ruamel.yaml import YAML

from smartcash import ModelVersions
from smartcash.backend.samples import write_samples
from smartcash.cli import COMMANDS
from smartcash.domain.config import TrainConfig
from smartcash.services.control import ControlFile
from smartcash.utils.i18n import LANGUAGES, catalogue, set_language
from smartcash.worker import train

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEXTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
TAGS = {"sh", "python", "yaml", "text", "diff"}

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?^```(?P<tag>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SPAN = re.compile(r"`(smartcash [^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its lines, and why it is not run."""

    text: Path
    number: int
    tag: str
    body: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.text.relative_to(ROOT).as_posix()}-{self.number}"


def blocks_of(text: Path) -> list[Block]:
    found = BLOCK.finditer(text.read_text(encoding="utf-8"))
    return [
        Block(text, number, each["tag"], each["body"], each["reason"]) for number, each in enumerate(found)
    ]


BLOCKS = [block for text in TEXTS for block in blocks_of(text)]


def of(tag: str) -> list[Block]:
    """What is to be run of a language, without what changes the source."""
    return [each for each in BLOCKS if each.tag == tag and each.reason is None and not changes_source(each)]


def changes_source(block: Block) -> bool:
    return block.body.startswith("# src/smartcash/")


def test_every_block_is_of_a_language_that_is_tried() -> None:
    assert {block.tag for block in BLOCKS} <= TAGS
    fences = sum(len(re.findall("^ *```", text.read_text(encoding="utf-8"), re.MULTILINE)) for text in TEXTS)
    assert fences == 2 * len(BLOCKS)  # none is indented, unclosed or overlooked


def test_every_reason_for_not_running_stands_before_a_block() -> None:
    reasons = sum(text.read_text(encoding="utf-8").count("<!-- not run:") for text in TEXTS)
    assert reasons == sum(block.reason is not None for block in BLOCKS)


# ---------------------------------------------------------------- both languages alike


def pairs() -> Iterator[tuple[Path, Path]]:
    """Every text in English and the same in Indonesian."""
    yield ROOT / "README.md", ROOT / "README.id.md"
    for text in sorted(DOCS.glob("*.en.md")):
        yield text, text.with_name(text.name.replace(".en.", ".id."))
    for text in sorted((DOCS / "en").glob("*.md")):
        yield text, DOCS / "id" / text.name


def plain(block: Block) -> object:
    """A block without what is translated. Of `sh` the programs and their options, of `text` the number of lines."""
    if block.tag == "python":
        tree = ast.parse(block.body)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value = ""
        return ast.dump(tree)
    if block.tag == "yaml":
        return re.sub(r"#.*", "", block.body)
    if block.tag == "sh":
        lines = [shlex.split(line, comments=True) for line in lines_of(block)]
        return [[words[0], *(word for word in words if word.startswith("-"))] for words in lines]
    return block.body if block.tag == "diff" else len(block.body.splitlines())


@pytest.mark.parametrize(("english", "indonesian"), [*pairs()], ids=lambda path: path.name)
def test_both_languages_show_the_same_blocks(english: Path, indonesian: Path) -> None:
    """A33: options, numbers, keys and program text; comments and names of files differ."""
    left, right = blocks_of(english), blocks_of(indonesian)
    assert [(each.tag, bool(each.reason)) for each in left] == [
        (each.tag, bool(each.reason)) for each in right
    ]
    for one, other in zip(left, right):
        assert plain(one) == plain(other), str(one)


# ---------------------------------------------------------------- the command line


def lines_of(block: Block) -> list[str]:
    """The commands of a block: continued lines joined, without comments and blank lines."""
    joined = block.body.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and what is left for it. Raises UsageError for one that there is not."""
    command: click.Command = import_module(f"smartcash.cli.{COMMANDS[words[0]]}").command
    words = words[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, inner, words = command.resolve_command(click.Context(command), words)
        assert inner is not None
        command = inner
    return command, words


def understood(words: list[str], folder: Path) -> None:
    """Raises for a line whose program, option or target there is not. Nothing is run."""
    match words:
        case ["smartcash", "--version" | "--help"]:
            pass
        case ["smartcash", *rest]:
            command, rest = command_of(rest)
            with command.make_context(command.name, rest):
                pass
        case [assignment, "smartcash", *rest] if re.fullmatch(r"SMARTCASH_[A-Z]+=.*", assignment):
            understood(["smartcash", *rest], folder)
        case ["torchrun", "--nproc-per-node", count, "-m", "smartcash", *rest] if count.isdigit():
            understood(["smartcash", *rest], folder)
        case ["make", target, *variables]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
            assert all(f"$({variable.partition('=')[0]})" in makefile for variable in variables), variables
        case ["pip", "install", "-e", what] | ["pip", "install", what]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            name, extras = re.fullmatch(r"([\w.]+)(?:\[([\w,-]+)\])?", what).groups()  # type: ignore[union-attr]
            assert name in (".", project["name"])
            assert set((extras or "").split(",")) - {""} <= set(project["optional-dependencies"])
        case ["python", script, *rest] if script.endswith(".py"):
            told = subprocess.run(
                [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True
            )
            assert all(word in told.stdout for word in rest if word.startswith("-"))
        case ["python", "-m", "benchmarks", *rest]:
            assert set(rest) <= {*BENCHMARKS, "--small"}, rest
        case ["python", "-m", module, *rest] if module.startswith("benchmarks."):
            told = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert all(word in told.stdout for word in rest if word.startswith("-"))
        case ["echo", line, ">>", target] if target.endswith("/control.jsonl"):
            control = ControlFile(folder / "control.jsonl")
            (folder / "control.jsonl").write_text(line + "\n", encoding="utf-8")
            assert len(control()) == 1, line
        case ["python", "-m", "pytest", file, "-k", _]:
            assert (ROOT / file).is_file(), file
        case ["cp", file, _]:
            assert (ROOT / file).is_file(), file
        case ["git", "clone", _, "smartcash"] | ["cd", _] | ["python3", "-m", "venv", ".venv"]:
            pass
        case [".", ".venv/bin/activate"]:
            pass
        case _:
            raise AssertionError(
                f"nobody checks the line {shlex.join(words)}: say before the block why it is not run"
            )


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_every_line_for_the_shell_is_understood(block: Block, tmp_path: Path) -> None:
    """Its command and its options exist and take these values; nothing is run."""
    for line in lines_of(block):
        words = shlex.split(line, comments=True)
        understood(words[: words.index(">")] if ">" in words else words, tmp_path)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_named_in_a_sentence_exists(text: Path) -> None:
    """`smartcash runs tag RUN good --remove draft`: the command, and every option in it."""
    outside = BLOCK.sub("", text.read_text(encoding="utf-8"))
    for span in SPAN.findall(outside):
        words = span.removesuffix("…").split()[1:]
        if not re.fullmatch("[a-z]+", words[0]):  # `smartcash COMMAND --help`, `smartcash --version`
            continue
        for inner in words[1].split("|") if len(words) > 1 and "|" in words[1] else [None]:
            command, rest = command_of([words[0], *([inner] if inner else words[1:2]), *words[2:]])
            known = {"--help", "--lang"} | {name for each in command.params for name in each.opts}
            unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known
            assert not unknown, span


def test_every_option_of_every_command_is_documented() -> None:
    """In the reference of both languages, below the heading of its command."""

    def below(command: click.Command, name: str) -> Iterator[tuple[str, set[str]]]:
        yield (
            name,
            {option for each in command.params if isinstance(each, click.Option) for option in each.opts},
        )
        if isinstance(command, click.Group):
            for each in command.commands.values():
                yield from below(each, f"{name} {each.name}")

    wanted = dict(
        pair
        for name, module in COMMANDS.items()
        for pair in below(import_module(f"smartcash.cli.{module}").command, f"smartcash {name}")
    )
    for language in LANGUAGES:
        page = (DOCS / language / "commands.md").read_text(encoding="utf-8")
        sections = dict(re.findall(r"^#+ (smartcash .+)\n((?:.*\n)*?)(?=#|\Z)", page, re.MULTILINE))
        for name, options in wanted.items():
            missing = {each for each in options - {"--lang"} if f"`{each}`" not in sections[name]}
            assert not missing, (language, name)


# ---------------------------------------------------------------- configurations and programs


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_every_yaml_block_is_a_configuration(block: Block) -> None:
    TrainConfig.parse(YAML(typ="safe").load(block.body))


PAGES = [*DOCS.glob("*.en.md"), *DOCS.glob("*.id.md"), *DOCS.glob("en/*.md"), *DOCS.glob("id/*.md")]
# page → what its blocks must have printed, whatever the language
SAYS = {
    "python": ("duration_s", "'mAP50'", "training.epochs: 16 → 2"),
    "use": ("0\n",),
    "comparison": ("mAP50",),
}


def toy(data: Path) -> TrainConfig:
    """A configuration that trains in seconds."""
    return TrainConfig.parse({
        "data": {"path": str(data), "image_size": 64, "batch_size": 4, "workers": 0},
        "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
        "training": {"epochs": 1}, "runtime": {"threads": 1},
    })  # fmt: skip


@pytest.fixture(scope="module", params=LANGUAGES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A language, and a folder with all that the pages speak of: data, a photo, three versions of a model."""
    folder = tmp_path_factory.mktemp(request.param)
    notes, photo = {"en": ("notes", "photo.jpg"), "id": ("uang", "foto.jpg")}[request.param]
    write_samples(folder / notes, images=20, seed=3, size_px=96)
    shutil.copy(next((folder / notes / "images" / "test").iterdir()), folder / photo)
    for _ in range(3):
        train(toy(folder / notes), folder / "runs")
    versions = ModelVersions(folder / "runs")
    for number in (1, 2):
        versions.apply(versions.check_promote(number, "produksi"))
    set_language(request.param)
    yield request.param, folder
    set_language(None)


def is_of(language: str, page: Path) -> bool:
    return page.parent.name == language or page.stem.endswith(f".{language}")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({block.text.name.partition(".")[0] for block in of("python")}))
def test_every_python_block_runs_as_it_is_printed(
    name: str, place: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A1, A20, A21, D9: one page after the other, in a folder such as its reader has, without a further setting."""
    language, folder = place
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SMARTCASH_HOME", raising=False)
    (page,) = (each for each in PAGES if each.name.partition(".")[0] == name and is_of(language, each))
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names: dict[str, Any] = {
        "model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1),
        "config": TrainConfig().model_dump(), "epoch": 1,
    }  # fmt: skip
    for block in blocks_of(page):
        if block in of("python"):
            exec(compile(block.body, str(block), "exec"), names)
    said = capsys.readouterr().out
    assert all(words in said for words in SAYS.get(name, ()))
    if name == "versions":
        data, facts = names["read_alias"](folder / "runs" / "models" / "produksi")
        assert len(data) > 1000 and facts["version"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_output_of_the_data_check_is_the_one_printed(language: str, tmp_path: Path) -> None:
    """The table on the data page, as far as its ellipsis."""
    name = {"en": "notes", "id": "uang"}[language]
    (shown,) = (block.body for block in blocks_of(DOCS / language / "data.md") if "detect\n" in block.body)
    write_samples(tmp_path / name, images=480)
    told = subprocess.run(
        [sys.executable, "-m", "smartcash", "data", "check", name, "--lang", language],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=200, check=True,
    ).stdout  # fmt: skip
    lines = [line.removesuffix("…").removeprefix("…").rstrip() for line in shown.splitlines()]
    assert [line for line in lines if line.strip() and line.strip() not in told] == []


# ---------------------------------------------------------------- what changes the source


def changed(folder: Path, blocks: list[Block]) -> dict[str, str]:
    """A copy of the source below `folder` with the changes of `blocks`, and the environment that it runs in.

    A diff replaces the one place that reads like its lines without +."""
    shutil.copytree(
        ROOT / "src" / "smartcash", folder / "src" / "smartcash", ignore=shutil.ignore_patterns("__pycache__")
    )
    for block in blocks:
        first, _, body = block.body.partition("\n")
        file = folder / first.removeprefix("# ")
        if block.tag == "python":
            assert not file.exists(), file
            file.write_text(block.body, encoding="utf-8")
            continue
        lines = body.splitlines()
        before, after = ("\n".join(line[1:] for line in lines if line[0] in keep) for keep in (" -", " +"))
        source = file.read_text(encoding="utf-8")
        assert source.count(before) == 1, (str(file), before)
        file.write_text(source.replace(before, after), encoding="utf-8")
    return {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "SMARTCASH_LANG": "en",
        "SMARTCASH_HOME": str(folder / "runs"),
    }


def section(title: str) -> list[Block]:
    """The blocks that change the source below one heading of the page on extending."""
    page = DOCS / "en" / "extending.md"
    text = page.read_text(encoding="utf-8")
    (part,) = (each for each in re.split(r"^## ", text, flags=re.MULTILINE) if each.startswith(title + "\n"))
    return [block for block in blocks_of(page) if changes_source(block) and block.body in part]


def told(environment: dict[str, str], *words: object) -> str:
    """What `python …` prints in the changed copy; it must end well."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=Path(environment["PYTHONPATH"]).parent, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_changes_the_source_stands_on_the_page_that_is_tried() -> None:
    assert {block.text.name for block in BLOCKS if changes_source(block)} == {"extending.md"}
    assert all(changes_source(block) for block in BLOCKS if block.tag == "diff")
    tried = sum(len(section(title)) for title in ("A backbone", "An exporter", "A data format", "A language"))
    assert tried == sum(changes_source(block) for block in blocks_of(DOCS / "en" / "extending.md"))


TOY = (
    "--image-size", 64, "--epochs", 1, "--yes", "--set", "model.pretrained=false", "--set", "data.batch_size=4",
    "--set", "data.workers=0", "--set", "runtime.threads=1",
)  # fmt: skip


@pytest.mark.slow
def test_a_backbone_with_a_name_of_its_own_trains(tmp_path: Path) -> None:
    environment = changed(tmp_path, section("A backbone"))
    write_samples(tmp_path / "notes", images=20, seed=3, size_px=96)
    told(environment, "-m", "smartcash", "train", "notes", "--backbone", "mobilenetv3_small", *TOY)
    (config,) = (tmp_path / "runs").glob("*/*/config.yaml")
    assert TrainConfig.from_yaml(config).model.backbone == "mobilenetv3_small"


@pytest.mark.slow
def test_an_exporter_of_ones_own_is_found_and_proven(tmp_path: Path) -> None:
    """A19."""
    environment = changed(tmp_path, section("An exporter"))
    write_samples(tmp_path / "notes", images=20, seed=3, size_px=96)
    train(toy(tmp_path / "notes"), tmp_path / "runs")
    assert "verified" in told(environment, "-m", "smartcash", "export", "latest", "--format", "npz")
    (file,) = (tmp_path / "runs").glob("*/*/exports/*.npz")
    assert "verified" in told(environment, "-m", "smartcash", "export", "verify", file)


@pytest.mark.slow
def test_a_data_format_of_ones_own_passes_the_tests_of_all_formats(tmp_path: Path) -> None:
    """The page's own line, on the changed copy: its name is among those that are tried."""
    environment = changed(tmp_path, section("A data format"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (line,) = (
        line for block in blocks_of(DOCS / "en" / "extending.md") if block.tag == "sh"
        for line in lines_of(block) if "pytest" in line
    )  # fmt: skip
    said = told(environment, *shlex.split(line)[1:], "-v", "-p", "no:cacheprovider")
    assert len(re.findall(r"\[table\] PASSED", said)) == 2
    write_samples(tmp_path / "notes", images=20, seed=3, size_px=96)
    convert = (
        "from smartcash.backend.formats import *; write_dataset(read_dataset('notes'), 'out', format='table')"
    )
    told(environment, "-c", convert)
    with (tmp_path / "out" / "labels.csv").open("a") as table:
        table.write("images/none.jpg,train,1000,1,2,3,4\n")
    look = "from smartcash.backend.formats import *; out = read_dataset('out'); print(out.format, out.report.counts())"
    found = told(environment, "-c", look)
    assert "table" in found and "'data_image_missing': 1" in found


@pytest.mark.slow
def test_a_third_language_is_spoken_by_the_command_line_and_the_page(tmp_path: Path) -> None:
    """A33: the texts, the switch, and the page's own bundle."""
    environment = changed(tmp_path, section("A language"))
    locales = tmp_path / "src" / "smartcash" / "utils" / "locales"
    english = (locales / "en.toml").read_text(encoding="utf-8")
    own = english.replace("SmartCash trains banknote detectors", "SmartCash nglatih detektor dhuwit")
    (locales / "jv.toml").write_text(own, encoding="utf-8")
    helped = told(environment, "-m", "smartcash", "--lang", "jv", "--help")
    assert "nglatih" in helped and "id, en, jv" in helped
    command = [sys.executable, "-m", "smartcash", "studio", "--no-browser", "--port", "0"]
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=unbuffered, stdout=subprocess.PIPE, text=True) as studio:
        assert studio.stdout is not None
        address, _, token = studio.stdout.readline().split()[-1].partition("/?token=")
        signed_in = {"authorization": f"Bearer {token}"}
        answers = [httpx.get(f"{address}/api/v1/locales/{each}", headers=signed_in) for each in ("jv", "xx")]
        script = httpx.get(f"{address}/words.js", headers=signed_in)
        studio.terminate()
    assert [answer.status_code for answer in answers] == [200, 422]
    assert set(answers[0].json()) == {key for key in catalogue("en") if not key.startswith("cli.")}
    assert 'jv: "Basa Jawa"' in script.text
