"""`p2pcity completion`."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    For bash: p2pcity completion bash > ~/.local/share/bash-completion/completions/p2pcity
    """
    from p2pcity.cli.main import cli

    make = get_completion_class(shell)
    assert make is not None, "click knows bash, zsh and fish"
    print(make(cli, {}, "p2pcity", "_P2PCITY_COMPLETE").source())
