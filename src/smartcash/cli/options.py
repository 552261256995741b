"""Options that several commands have, and how a group gets its commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text

home_option = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.runs.home")
)


def _look_in(context: click.Context, option: click.Parameter, home: Path | None) -> None:
    if home is not None:
        os.environ["SMARTCASH_HOME"] = str(home)


# for commands that take the name of a run, version or alias, and whose work knows the home by the environment alone
models_home_option = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.runs.home"), expose_value=False,
    callback=_look_in,
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help=text("cli.json"))

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class TargetFile(click.Path):
    """A file that is to be written, as a Path: refused at once, not after the work, where it cannot be."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(text("cli.target_missing", path=path, folder=path.parent), param, ctx)
        if not os.access(path.parent, os.W_OK):
            self.fail(text("cli.target_forbidden", path=path, folder=path.parent), param, ctx)
        return path


def commands_of(
    group: click.Group, *options: Decorator
) -> Callable[[str, str, str], Callable[[Callable[..., None]], click.Command]]:
    """A decorator for the commands of `group`: name, key of the help below `cli.<group>`, example. Each also gets
    `options` and `--lang`."""

    def named(name: str, key: str, example: str) -> Callable[[Callable[..., None]], click.Command]:
        area = f"cli.{group.name}"
        shown = f"\b\n{text(f'{area}.example')}:\n  smartcash {group.name} {example}"
        made = group.command(name, help=f"{text(f'{area}.{key}')}\n\n{shown}")

        def add(function: Callable[..., Any]) -> click.Command:
            command = made(function)
            for option in options:  # behind its own
                option(command)
            return language_option(command)

        return add

    return named
