"""The command line starts without the heavy libraries, speaks both languages, and fails in plain words."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from smartcash import __version__
from smartcash.cli import COMMANDS, HIDDEN, _Commands
from smartcash.utils.i18n import LANGUAGES, text

HEAVY = {"torch", "torchvision", "timm", "cv2", "numpy", "PIL", "pydantic", "rich", "hotcoco"}

# prints the heavy modules in sys.modules after the command line has ended, as the last line of stderr
LOADED = """
import json, sys
from smartcash.cli import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""

# every command of every group, below one language, in a fresh process: texts are made when a module is imported
EVERY_HELP = """
import json, sys
import click
from click.testing import CliRunner
from smartcash.cli import COMMANDS, HIDDEN, main
from smartcash.utils.i18n import set_language
set_language(sys.argv[1])
from importlib import import_module
helps, options = {}, {}
def walk(command, path):
    result = CliRunner().invoke(command, ["--help"], prog_name="smartcash " + path, catch_exceptions=False)
    helps[path] = [result.exit_code, result.output]
    options[path] = [each.help for each in command.params if isinstance(each, click.Option) and not each.hidden]
    for name, inner in getattr(command, "commands", {}).items():
        walk(inner, path + " " + name)
for name, module in COMMANDS.items():
    walk(import_module("smartcash.cli." + module).command, name)
heavy = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"helps": helps, "options": options, "modules": heavy}))
"""


# prints the heavy modules that each answer of a workbench has loaded, in turn
ANSWERED = """
import json, sys
from pathlib import Path
from smartcash.cli.answer import _answer
facts = {"path": sys.argv[1], "images": 10, "task": "detect"}
_answer("draw_samples", facts)
split = {"path": sys.argv[1], "seed": 0, "valid": 15, "test": 15}
plan = _answer("plan_split", {**split, "target": sys.argv[1] + "-split"})
_answer("write_split", {**split, "out": sys.argv[1] + "-split", "content_hash": plan["content_hash"]})
_answer("check_data", {"path": sys.argv[1]})
_answer("list_pictures", {"path": sys.argv[1], "split": "train"})
_answer("show_picture", {"path": sys.argv[1], "split": "train", "index": 0, "size": 64})
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
        timeout=120,
        check=False,
    )


def smartcash(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m smartcash …` in a fresh process."""
    return python("-m", "smartcash", *arguments, **environment)


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below `group`, with their full names."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["no-such-command"]])
def test_the_command_line_answers_without_loading_anything_heavy(arguments):
    """A31 (each layer usable headless) and the 0.3 s of the start."""
    answer = python("-c", LOADED, *arguments)
    loaded = set(json.loads(answer.stderr.splitlines()[-1]))
    assert "click" in loaded
    assert loaded & HEAVY == set()


def test_python_m_smartcash_tells_its_version():
    """A31."""
    answer = smartcash("--version")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert __version__ in answer.stdout


def test_the_first_help_names_every_command():
    """A33."""
    answer = smartcash("--help")
    assert answer.returncode == 0
    for name in COMMANDS:
        assert (f"  {name} " in answer.stdout) == (name not in HIDDEN), name


@pytest.mark.parametrize(("language", "word"), [("id", "Contoh"), ("en", "Example")])
def test_every_command_has_a_help_with_an_example_and_no_heavy_import(language, word):
    """A33: Indonesian and English; the heavy libraries wait until a command does its work."""
    answer = python("-c", EVERY_HELP, language)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert set(COMMANDS) <= set(found["helps"])
    assert len(found["helps"]) > len(COMMANDS)
    for path, (code, shown) in found["helps"].items():
        assert code == 0, path
        is_group = any(other.startswith(path + " ") for other in found["helps"])
        if not is_group:
            assert f"{word}:" in shown, f"smartcash {path} --help has no example"
            assert f"smartcash {path}" in shown.partition(f"{word}:")[2], path
            assert "--lang" in shown, path
    assert set(found["modules"]) & HEAVY == set()


def test_an_indonesian_help_has_no_english_words_for_values():
    """A33: what stands for an option's value, and the examples."""
    answer = python("-c", EVERY_HELP, "id")
    for path, (_, shown) in json.loads(answer.stdout)["helps"].items():
        assert not set(re.split(r"[\s\[\].]+", shown)) & {
            "OPTIONS",
            "COMMAND",
            "ARGS",
            "TEXT",
            "INTEGER",
            "RANGE",
        }, path


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_list_of_commands_says_what_each_does_in_a_sentence_that_is_not_cut(language):
    """A33: 80 columns."""
    groups = [
        "",
        *(name for name in COMMANDS if name not in HIDDEN and isinstance(_Commands()[name], click.Group)),
    ]
    for group in groups:
        shown = smartcash(*group.split(), "--help", "--lang", language, COLUMNS="80").stdout
        assert len(shown.splitlines()) > 5 and "..." not in shown.partition("\n\n")[2], group
        assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_an_option_does_is_said_in_a_sentence(language):
    """A33: with a capital and a full stop, as everywhere."""
    options = json.loads(python("-c", EVERY_HELP, language).stdout)["options"]
    assert len(options) > 50
    told = [(command, said) for command, all_ in options.items() for said in all_]
    # of two words to choose from, each says what it does
    wrong = [each for each in told if not re.fullmatch(r"(?:[A-Z]|detect: ).*\.", each[1], re.DOTALL)]
    assert wrong == []


def test_the_two_languages_say_different_things():
    """A33: --lang wins over the environment."""
    indonesian = smartcash("--lang", "id", "train", "--help", SMARTCASH_LANG="en").stdout
    english = smartcash("train", "--help", "--lang=en", SMARTCASH_LANG="id").stdout
    assert "Contoh" in indonesian
    assert "Example" in english
    assert indonesian != english


@pytest.mark.parametrize(
    ("arguments", "word"), [((), "Pemakaian: smartcash"), (("runs",), "Pemakaian: smartcash runs")]
)
def test_a_language_alone_is_answered_with_the_help_in_it_as_if_nothing_was_said(arguments, word):
    """A33."""
    alone = smartcash(*arguments, "--lang", "id", SMARTCASH_LANG="en")
    silent = smartcash(*arguments, SMARTCASH_LANG="id")
    assert (alone.returncode, alone.stdout, alone.stderr) == (2, silent.stdout, silent.stderr)
    assert alone.stderr.startswith(word)


def test_of_two_languages_the_last_counts_and_behind_a_double_dash_none_is_meant():
    """A33."""
    assert "Usage:" in smartcash("--lang", "id", "log", "--lang=en", "--help").stdout
    unread = smartcash("compare", "--", "--lang", "id", SMARTCASH_LANG="en")
    assert "--lang" in unread.stderr and "There is no run" in unread.stderr


@pytest.mark.parametrize(
    ("value", "word"), [("id_ID.UTF-8", "Pemakaian"), ("ID", "Pemakaian"), ("en-GB", "Usage")]
)
def test_a_language_may_be_written_as_systems_write_it(value, word):
    """A33."""
    shown = smartcash("log", "--help", SMARTCASH_LANG=value)
    assert word in shown.stdout and not shown.stderr


def test_an_unknown_language_is_named_once_with_those_that_there_are(tmp_path):
    """A33: the system's language is used instead; a worker does not repeat it, and a chosen language needs no other."""
    shown = smartcash("runs", "list", "--home", str(tmp_path), SMARTCASH_LANG="ind", LC_ALL="id_ID.UTF-8")
    assert shown.returncode == 0 and shown.stdout.startswith("Belum ada run")
    (line,) = shown.stderr.splitlines()
    assert "SMARTCASH_LANG=ind" in line and "id, en" in line
    assert not smartcash("--lang", "en", "log", "--help", SMARTCASH_LANG="ind").stderr
    assert not smartcash("worker", "--help", SMARTCASH_LANG="idn").stderr


def test_an_unknown_command_is_wrong_usage():
    """A33 and the exit codes."""
    answer = smartcash("no-such-command")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "no-such-command" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("language", "words"), [("id", "Tidak ada perintah 'trian'"), ("en", "No such command 'trian'")]
)
def test_a_misspelt_command_is_answered_in_the_language_asked_for_with_the_one_that_was_meant(
    language, words
):
    """A33."""
    answer = smartcash("--lang", language, "trian")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert words in answer.stderr
    assert "'train'" in answer.stderr


@pytest.mark.parametrize(("command", "usage"), [("train", "[DATA]"), ("advise", "[DATA]")])
def test_an_argument_that_is_written_as_an_option_is_answered_with_how_it_is_written(command, usage):
    """A33: `--data` is what other tools call it."""
    answer = smartcash("--lang", "en", command, "--data", "notes")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert f"it is given without one: smartcash {command} {usage}" in answer.stderr
    other = smartcash("--lang", "en", command, "--no-such-thing")
    assert other.returncode == 2 and "No such option" in other.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_is_its_message_and_its_exit_code_without_a_traceback(tmp_path, language):
    """A33, A34: what happened, in the language asked for."""
    missing = tmp_path / "nothing"
    answer = smartcash("checkpoint", "show", str(missing / "x.pth"), "--lang", language)
    assert (answer.returncode, answer.stdout) == (1, "")
    message = text("errors.checkpoint_folder_missing", language, path=str(missing))
    assert answer.stderr == f"✗ {message}\n"


def test_a_wrong_setting_is_wrong_usage_and_names_every_problem(tmp_path):
    """A2: all problems at once, exit code 2."""
    answer = smartcash("train", str(tmp_path), "--set", "optimizer.lr=-1", "--set", "training.epochs=0")
    assert answer.returncode == 2
    assert "optimizer.lr" in answer.stderr
    assert "training.epochs" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_mistyped_backbone_is_refused_before_anything_is_confirmed(tmp_path):
    """A11, A12: no run, nothing to compare the next configuration with; the names that were meant are given."""
    (tmp_path / "notes").mkdir()
    for command in (
        ("train", str(tmp_path / "notes"), "--backbone", "efficientnet_lit0"),
        ("train", str(tmp_path / "notes"), "--backbone", "efficientnet_lit0", "--background"),
        ("advise", str(tmp_path / "notes"), "--backbones", "resnet50,efficientnet_lit0", "--budget", "10m"),
    ):
        answer = smartcash(*command, "--yes", "--home", str(tmp_path / "home"), "--lang", "en")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert "model.backbone" in answer.stderr and "efficientnet_lite0" in answer.stderr
        assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [("training:\n\tepochs: 3\n", "line 2 is indented by a tab"), ("a: 1\nb: [1\n", "line 3")],
)
def test_what_is_no_yaml_is_named_by_its_line(tmp_path, content, told):
    """A11, A33: in the configuration and in a data set, in one sentence."""
    (tmp_path / "data.yaml").write_text(content)
    for command in (
        ("train", "--config", str(tmp_path / "data.yaml")),
        ("data", "check", str(tmp_path / "data.yaml")),
    ):
        answer = smartcash(*command, "--lang", "en")
        assert answer.returncode != 0 and told in answer.stderr and "unicode string" not in answer.stderr
    (tmp_path / "data.yaml").write_text(f"{'x' * 100_000}: 1\n{'x' * 100_000}: 2\n")
    assert len(smartcash("train", "--config", str(tmp_path / "data.yaml"), "--lang", "en").stderr) < 1000


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_configuration_that_is_not_there_or_no_text_is_answered_in_words(tmp_path, language):
    """A11, A33: without a number of the system's."""
    missing, picture = tmp_path / "mine.yaml", tmp_path / "picture.yaml"
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    for file, code in ((missing, "config_or_run_unknown"), (picture, "config_not_text")):
        answer = smartcash("train", "notes", "--config", str(file), "--lang", language)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr.endswith(f"• {file}: {text(f'problems.{code}', language, home='runs')}\n")


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    """A33, A34: nothing is read or computed first; exit code 2, no traceback."""
    file = tmp_path / "file"
    file.write_text("kept")
    count = ("count", "no-such-model", str(tmp_path / "note.jpg"), "--csv")
    for command in (
        (*count, str(tmp_path / "no" / "counts.csv")), (*count, str(file / "counts.csv")), (*count, str(tmp_path)),
        ("data", "check", str(tmp_path), "--html", str(tmp_path / "no" / "page.html")),
        *((name, "latest", "--html", str(tmp_path / "no" / "page.html")) for name in ("benchmark", "compare", "report")),
        ("data", "preview", str(tmp_path), "--out", str(tmp_path / "no" / "preview.jpg")),
    ):  # fmt: skip
        answer = smartcash(*command, "--lang", "en")
        assert (answer.returncode, answer.stdout) == (2, ""), answer.stderr
        assert command[-1] in answer.stderr and "Traceback" not in answer.stderr
    assert file.read_text() == "kept"


def test_a_file_that_nobody_named_and_that_is_missing_stays_a_bug(tmp_path, monkeypatch, capsys):
    """A34: only a person's own mistakes are told in one line."""
    from smartcash import cli

    named = tmp_path / "named"

    def missing(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No such file", str(named))

    monkeypatch.setattr(cli._Root, "main", missing)
    with pytest.raises(FileNotFoundError):
        cli.main(["log", "--home", str(tmp_path)])
    for words in (["log", str(named)], ["log", f"--export={named}"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 2 and str(named) in capsys.readouterr().err


def test_what_a_workbench_does_with_data_alone_waits_for_no_torch(tmp_path: Path) -> None:
    """To draw, check, show and split. torch takes seconds to load."""
    done = python("-c", ANSWERED, str(tmp_path / "notes"))
    assert done.returncode == 0, done.stderr
    assert not {"torch", "torchvision", "timm"} & set(json.loads(done.stdout))
