"""`p2pcity`: the table of commands, and how every error becomes one line and an exit code."""

import importlib
import os
import sys
from typing import Any, Final, NoReturn

import click

from p2pcity.cli import exit_codes
from p2pcity.errors import DecodeError, P2PCityError

# Name: (module:attribute, help in one line). The line stands here so that `p2pcity --help`
# need not import a command; a test compares it with the command's own.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("p2pcity.cli.init:init", "Make the keys, the log and the configuration of one node."),
    "key": ("p2pcity.cli.key:key", "Make, show and import Ed25519 keys."),
    "genesis": ("p2pcity.cli.genesis:genesis", "Make, show and sign the start of a network."),
    "run": ("p2pcity.cli.run:run", "Run the daemon."),
    "config": ("p2pcity.cli.config:config", "Print each setting and where its value came from."),
    "status": ("p2pcity.cli.status:status", "Show a node on one screen."),
    "peers": ("p2pcity.cli.peers:peers", "List a node's peers."),
    "doctor": (
        "p2pcity.cli.doctor.command:doctor",
        "Say what is wrong with a node, and the command or setting that mends it.",
    ),
    "raft": ("p2pcity.cli.raft:raft", "Look at ordering, and change who orders."),
    "submit": ("p2pcity.cli.submit:submit", "Send events to a node."),
    "ingest": ("p2pcity.cli.ingest.command:ingest", "Load a file of records as signed events."),
    "tail": ("p2pcity.cli.tail:tail", "Print events as they are committed."),
    "query": ("p2pcity.cli.query:query", "Print the events that match."),
    "ledger": ("p2pcity.cli.ledger:ledger", "Look at the ledger, its blocks and transactions."),
    "trace": ("p2pcity.cli.trace:trace", "Show a transaction's way through every node."),
    "compare": ("p2pcity.cli.compare:compare", "Compare the ledgers of two nodes."),
    "ping": ("p2pcity.cli.ping:ping", "Measure how long nodes and peers take to answer."),
    "bw": ("p2pcity.cli.bw:bw", "Show how much goes to and comes from each peer, and on what."),
    "rebuild": ("p2pcity.cli.rebuild:rebuild", "Make the views of a stopped node anew."),
    "check": ("p2pcity.cli.check:check", "Check the whole ledger of a stopped node."),
    "inspect": (
        "p2pcity.cli.inspect_directory:inspect",
        "Show what lies in a stopped node's data directory.",
    ),
    "top": (
        "p2pcity.cli.top:top",
        "Show a node, what it is at, and how far each other node is; live.",
    ),
    "debug": ("p2pcity.cli.bundle:debug", "Gather what is needed to find out what went wrong."),
    "systemd": ("p2pcity.cli.systemd.command:systemd", "Install the units for systemd."),
    "testnet": (
        "p2pcity.cli.testnet.command:testnet",
        "Make and run a network of processes, or of containers, on this machine.",
    ),
    "bench": ("p2pcity.cli.bench.command:bench", "Put load on three local nodes and measure."),
    "demo": ("p2pcity.cli.demo.command:demo", "Run a city: four nodes order real events."),
    "schema": (
        "p2pcity.cli.schema:schema",
        "Print the JSON Schema of what a command prints with --json.",
    ),
    "completion": ("p2pcity.cli.completion:completion", "Print the shell's completion script."),
    "version": (
        "p2pcity.cli.version:version",
        "Print versions of p2pcity, its formats on the disk, and what it stands on.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, name the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"Did you mean {near[0]}?" if near else "See p2pcity --help."
            ctx.fail(f"there is no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 the node answers but is "
    "degraded, 4 the node can't be reached, 5 a proof or check says no.",
)
@click.version_option(package_name="p2pcity", prog_name="p2pcity")
def cli() -> None:
    """Order, keep and prove a city's events together with your peers."""


def fail(message: str, code: int) -> NoReturn:
    """Print one line on standard error and leave with `code`."""
    text = " ".join(message.split())
    print(f"p2pcity: {text}", file=sys.stderr)
    raise SystemExit(code)


def sentence(error: P2PCityError) -> str:
    """Return the error and its remedy as one line."""
    text = str(error).strip()
    if not error.remedy:
        return text
    return f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} {error.remedy}"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every expected error is one line and an exit code."""
    try:
        result: Any = cli.main(arguments, prog_name="p2pcity", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "p2pcity"
        fail(f"{error.format_message()} (see {command} --help)", exit_codes.USAGE)
    except click.ClickException as error:
        fail(error.format_message(), exit_codes.FAILED)
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(exit_codes.INTERRUPTED) from None
    except DecodeError as error:
        # A file that was named and is not what it should be; a wrong signature is a check's no.
        is_signature = error.reason == "signature"
        fail(sentence(error), exit_codes.CHECK_SAYS_NO if is_signature else exit_codes.USAGE)
    except P2PCityError as error:
        fail(sentence(error), error.exit_code)
    except BrokenPipeError:
        # `p2pcity tail | head`: the reader has gone; nothing more can be said, nor flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", exit_codes.FAILED)
    raise SystemExit(result if isinstance(result, int) else 0)
