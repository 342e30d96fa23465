"""`p2pcity run`: the daemon."""

import gc
from pathlib import Path

import click

from p2pcity.cli.node_address import config_option, load_config
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

    It ends on SIGTERM or Ctrl-C. Its own exit codes: 2 configuration, 10 corruption, 11 sync
    failed, 12 data directory locked, 13 diverged, 14 rules too old.
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
    settings_in_force = load_config(config_file, flags)

    # Nothing that imports make is ever freed: collections in between found nothing, and took an
    # eighth of the time until the node serves.
    gc.disable()
    from p2pcity.node.node import main

    gc.enable()
    return main(settings_in_force)
