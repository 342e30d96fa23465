"""`p2pcity version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

from p2pcity import __version__
from p2pcity.cli.output import json_option, print_json
from p2pcity.wire.limits import PROTOCOL_VERSION, RULES_VERSION

LIBRARIES = ("libp2p", "trio", "pynacl", "cbor2", "cryptography", "starlette", "hypercorn")


@click.command()
@json_option
def version(is_json: bool) -> None:
    """Print versions of p2pcity, its formats on the disk, and what it stands on."""
    formats = _formats()
    libraries = {name: _installed(name) for name in LIBRARIES}
    if is_json:
        print_json(
            "version",
            {
                "release": __version__,
                "protocol": PROTOCOL_VERSION,
                "rules": RULES_VERSION,
                "formats": formats,
                "python": platform.python_version(),
                "libraries": libraries,
            },
        )
        return
    print(f"p2pcity {__version__}, protocol {PROTOCOL_VERSION}, rules {RULES_VERSION}")
    print("formats: " + ", ".join(f"{name} {number}" for name, number in formats.items()))
    print(f"Python {platform.python_version()}, {platform.platform(terse=True)}")
    print(", ".join(f"{name} {number}" for name, number in libraries.items()))


def _formats() -> dict[str, int]:
    """What it writes; the views alone are made anew from any other format."""
    from p2pcity.ledger import base_store, outbox, records
    from p2pcity.views import schema

    return {
        "log": records.FORMAT_VERSION,
        "outbox": outbox.FORMAT_VERSION,
        "base": base_store.FORMAT_VERSION,
        "views": schema.VERSION,
    }


def _installed(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "absent"
