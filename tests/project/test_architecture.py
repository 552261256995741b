"""The rules that keep the layers apart and the files safe, read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import smartcash

SOURCE = Path(smartcash.__file__).parent
CHECKOUT = Path(__file__).parents[2]

# Reads what a person said they trust, in a child process that has nothing else to lose, and writes plain
# tensors for the saver to take over (`smartcash checkpoint import`).
IMPORT_OF_TRUSTED_FILES = ("handlers/checkpoint/checkpoint_loader.py", "convert_pickled")


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Every file of the package, parsed."""
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 40
    for file in files:
        yield file.relative_to(SOURCE).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def calls(*names: str) -> list[tuple[str, str, ast.Call]]:
    """(file, innermost function, call) of every call of one of these dotted names."""
    found = []

    def visit(file: str, function: str, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            found.append((file, function, node))
        for child in ast.iter_child_nodes(node):
            visit(file, function, child)

    for file, tree in trees():
        visit(file, "", tree)
    return found


def imports() -> set[str]:
    """Every module and every `module.name` that the package imports."""
    found = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """No type, Exception, BaseException, or a tuple with one of them."""
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind) in ("Exception", "BaseException") for kind in types)


def test_no_import_goes_up():
    """A31: the contracts in pyproject.toml, by import-linter."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    answer = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    kept = re.search(r"Contracts: (\d+) kept, 0 broken", answer.stdout)
    assert kept is not None
    assert int(kept[1]) >= 3


def test_only_the_worker_looks_at_every_error_and_nobody_swallows_one():
    """A34: whoever catches everything raises it again; only the worker records it first. What a callback of the
    user's raises is the one exception: it becomes a warning or the failure of the run, by name."""
    blind = [
        (file, node)
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    own = [(file, node) for file, node in blind if file != "backend/callbacks.py"]
    for file, node in own:
        last = node.body[-1]
        assert isinstance(last, ast.Raise), f"{file}:{node.lineno} swallows every error"
        assert last.exc is None, f"{file}:{node.lineno} makes another error of every error"
    assert [file for file, node in own if node.name] == ["worker/training.py"]
    assert len(blind) - len(own) == 1


def test_only_the_saver_writes_tensors():
    """B29, D2: a checkpoint reaches the disk through the saver alone, so no file is ever torn."""
    names = ("torch.save", "pickle.dump", "np.savez", "_Pickler", "StoredZip")
    writers = {(file, function) for file, function, _ in calls(*names)}
    assert {file for file, _ in writers - {IMPORT_OF_TRUSTED_FILES}} == {
        "handlers/checkpoint/checkpoint_saver.py"
    }
    assert not imports() & {"torch.save", "pickle.dump"}


def test_no_file_is_unpickled_blindly():
    """B18: every torch.load says weights_only=True; nothing else unpickles."""
    loads = calls("torch.load")
    assert len(loads) >= 2
    for file, function, call in loads:
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        wanted = "False" if (file, function) == IMPORT_OF_TRUSTED_FILES else "True"
        assert said.get("weights_only") == wanted, f"{file}:{call.lineno}"
    assert not calls("pickle.load", "pickle.loads", "pickle.Unpickler")
    assert not imports() & {"torch.load", "pickle.load", "pickle.loads", "joblib", "dill"}


def test_no_peer_under_a_copyleft_licence_is_imported():
    """D16: peers are run by the benchmarks in a process and an environment of their own."""
    packages = {module.partition(".")[0] for module in imports()}
    assert {"torch", "numpy", "timm"} <= packages
    assert not packages & {"ultralytics", "albumentationsx", "yolov5", "libreyolo"}
