"""`smartcash studio`: the web page."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text


@language_option
@click.command("studio", help=text("cli.studio.help"), epilog=text("cli.studio.example"))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help=text("cli.studio.port")
)
@click.option("--host", default="127.0.0.1", show_default=True, help=text("cli.studio.host"))
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help=text("cli.studio.allow_host"))
@click.option("--no-browser", is_flag=True, help=text("cli.studio.no_browser"))
@click.option("--new-token", is_flag=True, help=text("cli.studio.new_token"))
@click.option("--notebook", is_flag=True, hidden=True)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.train.home"))
def command(
    port: int,
    host: str,
    hosts: tuple[str, ...],
    no_browser: bool,
    new_token: bool,
    notebook: bool,
    home: Path | None,
) -> None:
    from smartcash.services.run_store import home as default_home
    from smartcash.ui.server import serve

    def ready(address: str) -> None:
        click.echo(text("studio_server.ready", address=address))
        click.echo(text("studio_server.end"))
        sys.stdout.flush()
        if not no_browser:
            webbrowser.open(address)

    serve(
        home or default_home(), host=host, port=port, hosts=hosts, new_token=new_token, ready=ready,
        interface="notebook" if notebook else "web", embedded=notebook,
    )  # fmt: skip
