"""The command line. One file per command or group of commands; they are imported only when named.

Nothing here, and nothing a command module imports at its top, may load torch, timm, OpenCV or pydantic:
`smartcash --help` answers within 0.3 s.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Iterator, Mapping
from gettext import bindtextdomain
from importlib import import_module
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

import click

from smartcash import __version__
from smartcash.domain.errors import SmartCashError
from smartcash.utils.files import temporary_target
from smartcash.utils.i18n import LANGUAGES, LOCALES, current_language, set_language, text, unknown_language

# command name → module in this package; the command is the module's attribute `command`
COMMANDS = {
    "train": "train",
    "resume": "resume",
    "extend": "extend",
    "evaluate": "evaluate",
    "predict": "predict",
    "count": "count",
    "serve": "serve",
    "advise": "advise",
    "compare": "compare",
    "report": "report",
    "export": "export",
    "benchmark": "benchmark",
    "data": "data",
    "checkpoint": "checkpoint",
    "worker": "worker",
    "answer": "answer",
    "runs": "runs",
    "models": "models",
    "log": "log",
    "doctor": "doctor",
    "studio": "studio",
}


# what a disk may answer to any write: no fault of the program's
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
# what a file may answer whose name a person gave; of any other it would be a bug, but for a missing permission
FILE_TROUBLE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR}
HIDDEN = ("worker", "answer")  # started by SmartCash itself
# kind of an option's value, as click calls it → what the help calls it (`cli.kind.…`)
KINDS = {
    "text": "text",
    "integer": "integer",
    "integer range": "integer",
    "float range": "number",
    "time": "time",
    "file": "file",
    "directory": "folder",
    "path": "path",
}
SPIN = "30000"  # turns of a loop, less than a millisecond

Command = TypeVar("Command", bound=click.Command)


class _Commands(Mapping[str, click.Command]):
    """The commands by name, imported when they are first needed."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = import_module(f"smartcash.cli.{COMMANDS[name]}").command
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Root(click.Group):
    """Lists its commands in the order in which they were given, and helps whoever writes an argument as an option."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if error.ctx is None:
                raise
            for each in error.ctx.command.params:
                if isinstance(each, click.Argument) and each.name == error.option_name.lstrip("-"):
                    usage = f"{error.ctx.command_path} {each.make_metavar(error.ctx)}"
                    told = text("cli.argument_as_option", option=error.option_name, usage=usage)
                    raise click.UsageError(told, error.ctx) from error
            raise


def language_option(command: Command) -> Command:
    """Add `--lang`, which `main` has already read when the texts below were made, and put what the help calls the
    values of options into its language."""
    told = text("cli.help.lang", languages=", ".join(LANGUAGES))
    command.params.append(
        click.Option(["--lang"], type=click.Choice(LANGUAGES), expose_value=False, help=told)
    )
    command.options_metavar = text("cli.kind.options")
    if isinstance(command, click.Group):
        command.subcommand_metavar = text("cli.kind.command")
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag and option.type.name in KINDS:
            option.metavar = option.metavar or text(f"cli.kind.{KINDS[option.type.name]}")
    return command


def shorten_waits() -> None:
    """Before torch is loaded: its threads, which wait for their next work in a loop, go to sleep sooner. By
    default they loop ten times as long, and hold up the threads that make the next batch."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)


def leads() -> bool:
    """Whether this process speaks and asks: of several that torchrun has started, only the first does."""
    return os.environ.get("RANK", "0") == "0"


def _without_language(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without each `--lang` of a language that there is, and the last of these: it is read before any
    help text is made, and `smartcash --lang id` is `smartcash` in Indonesian."""
    left: list[str] = []
    language = None
    words = iter(arguments)
    for word in words:
        if word == "--":
            return [*left, word, *words], language
        given = [word, *islice(words, 1)] if word == "--lang" else [word]
        value = given[-1].removeprefix("--lang=")
        if word.startswith("--lang") and value in LANGUAGES:
            language = value
        else:
            left += given
    return left, language


def _is_named(place: str, arguments: list[str]) -> bool:
    """Whether a person named this very file, or the one that it is the temporary form of."""
    path = Path(place)
    path = path.with_name(temporary_target(path.name) or path.name).absolute()
    words = [word for argument in arguments for word in (argument, argument.partition("=")[2]) if word]
    return any(Path(word).absolute() == path for word in words)


def _place_of(error: OSError, arguments: list[str]) -> str:
    """What an error of the system is about. A full disk is found out where the error names no file: of those that a
    command may write to, the one with the least room."""
    if named := error.filename2 or error.filename:  # of a copy, the second name is the new file
        path = Path(str(named))
        return str(path.with_name(temporary_target(path.name) or path.name))
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return str(Path.cwd())
    from psutil import disk_usage

    from smartcash.utils.machine import nearest_existing

    homes = [os.environ.get(name) for name in ("SMARTCASH_HOME", "SMARTCASH_CACHE")]
    words = [word for argument in arguments for word in (argument, argument.partition("=")[2])]
    places = [nearest_existing(Path(word)) for word in [*words, *homes, gettempdir()] if word]
    there = {str(place): disk_usage(str(place)) for place in [Path.cwd(), *places] if place.exists()}
    return min(there, key=lambda place: there[place].free if there[place].total else math.inf)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a SmartCashError becomes its message and its exit code, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    arguments, language = _without_language(arguments)
    if language is not None:
        set_language(language)
    if (unknown := unknown_language()) and leads() and arguments[:1] not in [[name] for name in HIDDEN]:
        click.echo(text("cli.language_unknown", value=unknown, known=", ".join(LANGUAGES)), err=True)
    # click's own words come from the standard library's catalogues
    os.environ["LANGUAGE"] = current_language()
    bindtextdomain("messages", str(LOCALES))
    shorten_waits()
    root = _Root(
        "smartcash",
        _Commands(),  # type: ignore[arg-type]  # nothing is added to it
        help=text("cli.help.root"),
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    root = language_option(click.version_option(__version__, prog_name="smartcash")(root))
    try:
        root.main(args=arguments, prog_name="smartcash")
    except SmartCashError as error:
        click.echo(f"✗ {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        place = _place_of(error, arguments)
        forbidden = error.errno in (errno.EACCES, errno.EPERM)
        if forbidden or (error.errno in FILE_TROUBLE and _is_named(place, arguments)):
            click.echo(f"✗ {text('errors.file', path=place, reason=error.strerror)}", err=True)
            sys.exit(2)
        if error.errno not in DISK_TROUBLE:
            raise
        click.echo(f"✗ {text('errors.disk', place=place, reason=error.strerror)}", err=True)
        sys.exit(1)
