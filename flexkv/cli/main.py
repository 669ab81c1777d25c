"""The root of the `flexkv` command: its options, and what its exit status says.

0: done. 1: what was looked for is not as it should be; each command says of what. 2: a wrong argument, in one line on
stderr. 130: interrupted by Ctrl-C.
"""

from __future__ import annotations

from importlib import metadata

import click

from flexkv.cli.cache import cache

__all__ = ["flexkv"]

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class _Root(click.Group):
    """Gives Ctrl-C an exit status of its own, also while a question is open."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            interrupted = True
        except click.Abort as abort:
            interrupted = isinstance(abort.__context__, KeyboardInterrupt)
            if not interrupted:
                raise
        click.echo("\nInterrupted.", err=True)
        raise click.exceptions.Exit(INTERRUPTED)


def _version() -> str:
    try:
        return metadata.version("flexkv")
    except metadata.PackageNotFoundError:
        return "of a working tree, not installed"


def _print_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        click.echo(f"flexkv {_version()}")
        ctx.exit()


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def flexkv() -> None:
    """FlexKV keeps the KV cache of LLM requests and brings it back. These are its tools."""


flexkv.add_command(cache)
