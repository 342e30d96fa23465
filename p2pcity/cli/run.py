"""`p2pcity run`: the daemon."""

import faulthandler
import gc
from pathlib import Path

import click

from p2pcity.cli.node_address import config_option, find_config_file, load_config
from p2pcity.errors import ConfigError


@click.command()
@config_option
@click.option("--data-dir", help="Use this data directory (node.data_dir).")
@click.option("--log-level", help="Least severe line written (logs.level).")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting: net.mdns=false."
)
def run(
    config_file: Path | None,
    data_dir: str | None,
    log_level: str | None,
    settings: tuple[str, ...],
) -> int:
    """Run the daemon.

    It ends on SIGTERM or Ctrl-C, and reads logs.level, net.peers, tokens and TLS anew on SIGHUP.
    Its own exit codes: 2 configuration, 10 corruption, 11 sync failed, 12 data directory locked,
    13 diverged, 14 rules too old.
    """
    flags: dict[str, str] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting} has no =", remedy="Write --set KEY=VALUE.")
        flags[path.strip()] = text.strip()
    if data_dir is not None:
        flags["node.data_dir"] = str(Path(data_dir).resolve())
    if log_level is not None:
        flags["logs.level"] = log_level
    file = find_config_file(config_file).absolute()
    config = load_config(file, flags)

    # Nothing that imports make is ever freed: collections in between found nothing, and took an
    # eighth of the time until the node serves.
    gc.disable()
    from p2pcity.node.node import main

    gc.enable()
    # A signal that ends the process from outside, such as a watchdog's, leaves the stacks behind.
    faulthandler.enable()
    return main(config, lambda: load_config(file, flags))
