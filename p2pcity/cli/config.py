"""`p2pcity config`: the settings in force."""

from pathlib import Path
from typing import Any

import click

from p2pcity.cli.node_address import config_option, find_config_file
from p2pcity.cli.output import json_option, print_json
from p2pcity.node.config import KEYS, Config
from p2pcity.node.config_reading import Loaded, load, type_words
from p2pcity.node.places import find_config


@click.command()
@config_option
@json_option
@click.option("--keys", "is_reference", is_flag=True, help="Print every key with what it means.")
def config(config_file: Path | None, is_json: bool, is_reference: bool) -> None:
    """Print each setting and where its value came from."""
    if is_reference:
        _print_reference(is_json)
        return
    file = None if config_file is None and find_config() is None else find_config_file(config_file)
    loaded = load(file)
    if is_json:
        settings = settings_document(loaded)
        print_json("config", {"file": None if file is None else str(file), "settings": settings})
        return
    values = {path: value_of(loaded.config, path) for path in KEYS}
    print(f"# {'no file' if file is None else file}; each line ends with where the value came from")
    section = ""
    for path, value in values.items():
        row = KEYS[path]
        if row.section != section:
            section = row.section
            print(f"\n[{section}]")
        print(f"{f'{row.name} = {toml_value(value)}':<60}  # {loaded.sources[path]}")


def settings_document(loaded: Loaded) -> dict[str, Any]:
    """Return each setting's value and source, for JSON."""
    return {
        path: {"value": _plain(value_of(loaded.config, path)), "source": loaded.sources[path]}
        for path in KEYS
    }


def value_of(config: Config, path: str) -> Any:
    """Return the value of `section.name`."""
    section, _, name = path.partition(".")
    return getattr(getattr(config, section), name)


def toml_value(value: Any) -> str:
    """Return a setting's value as TOML writes it; nothing is an empty text."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _print_reference(is_json: bool) -> None:
    if is_json:
        rows = {
            path: {
                "takes": type_words(row),
                "default": _plain(row.default),
                "variable": row.variable,
                "says": row.says,
            }
            for path, row in KEYS.items()
        }
        print_json("config-keys", {"keys": rows})
        return
    section = ""
    for row in KEYS.values():
        if row.section != section:
            section = row.section
            print(f"\n[{section}]" if section != "node" else f"[{section}]")
        print(f"# {row.says} Takes {type_words(row)}. {row.variable}")
        print(f"{row.name} = {toml_value(row.default)}")
