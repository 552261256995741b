"""`smartcash serve`: a model version behind HTTP."""

from __future__ import annotations

import sys
from contextlib import suppress

import click

from smartcash.cli import language_option
from smartcash.cli.options import models_home_option
from smartcash.utils.i18n import text


@language_option
@click.command("serve", help=text("cli.serve.help"), epilog=text("cli.serve.example"))
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help=text("cli.serve.host"))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8300, show_default=True, help=text("cli.serve.port")
)
@click.option("--token", envvar="SMARTCASH_TOKEN", help=text("cli.serve.token"))
@click.option(
    "--max-batch", type=click.IntRange(1, 256), default=4, show_default=True, help=text("cli.serve.max_batch")
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0, 1000),
    default=5.0,
    show_default=True,
    help=text("cli.serve.max_wait_ms"),
)
@click.option(
    "--max-upload-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=16.0,
    show_default=True,
    help=text("cli.serve.max_upload_mb"),
)
@click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    default=40.0,
    show_default=True,
    help=text("cli.serve.max_megapixels"),
)
@click.option(
    "--max-at-once",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help=text("cli.serve.max_at_once"),
)
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@models_home_option
def command(
    model: str,
    host: str,
    port: int,
    token: str | None,
    max_batch: int,
    max_wait_ms: float,
    max_upload_mb: float,
    max_megapixels: float,
    max_at_once: int,
    device: str,
) -> None:
    from smartcash.ui.serving import Limits, create_app, listen, names_of, serve

    listener = listen(host, port, token or None)  # before the model is loaded, which takes seconds
    from smartcash.worker.serving import ServedModel

    served = ServedModel(
        model,
        device=device,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_pixels=round(max_megapixels * 1e6),
    )
    limits = Limits(round(max_upload_mb * 2**20), max_at_once)
    app = create_app(served, limits, token=token or None, hosts=names_of(host))
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    click.echo(text("serve.ready", name=served.name, version=served.state().version, address=address))
    sys.stdout.flush()  # into a file or a pipe too, before the first request
    with suppress(KeyboardInterrupt):  # how it ends: what is under way has been answered by then
        serve(app, listener)
