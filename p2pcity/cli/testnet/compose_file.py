"""The files that run a network in containers: compose.yaml, and Prometheus's settings.

They use what docker-compose 1.29 and Compose v2 both know.
"""

from collections.abc import Sequence
from typing import Final

from p2pcity.cli.testnet.making import PORT

COMPOSE_FILE: Final = "compose.yaml"
PROMETHEUS_FILE: Final = "prometheus.yml"
RULES_DIRECTORY: Final = "rules"
"""Whose files Prometheus takes for alert rules."""
IMAGE: Final = "p2pcity"
IMAGE_USER_ID: Final = 4710
"""The user of the image, and its group."""
HTTP_PORT: Final = PORT + 1
NETWORK: Final = "/network"
"""Where containers find the network's directory, or their part of it."""

_HEAD: Final = """\
# Made by `p2pcity testnet init --compose`. Start it with `p2pcity testnet up DIR`, or here with
# `docker compose up -d` (docker-compose 1.29 will do). The image: `make image`.

x-node: &node
  image: ${{P2PCITY_IMAGE:-{image}}}
  {user}init: true
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  stop_grace_period: 15s
  logging: {{driver: json-file, options: {{max-size: 10m, max-file: "3"}}}}
  healthcheck:
    test: [CMD, p2pcity, status, --quiet]
    interval: {interval_s}s
    timeout: 5s
    retries: 3
    start_period: 20s

services:
"""
_NODE: Final = """\
  {name}:
    <<: *node
    hostname: {name}
    command: [run, --config, {network}/{name}/p2pcity.toml]
    environment: {{P2PCITY_NODE: {network}/{name}}}
    volumes: ["./{name}:{network}/{name}"]
"""
_PROMETHEUS: Final = """\
  prometheus:
    image: ${PROMETHEUS_IMAGE:-prom/prometheus}
    command: [--config.file=/etc/prometheus/prometheus.yml]
    ports: ["127.0.0.1:9090:9090"]
    volumes:
      - "./prometheus.yml:/etc/prometheus/prometheus.yml:ro"
      - "./rules:/etc/prometheus/rules:ro"
"""
# A check starts an interpreter, a third of a second of CPU: that is to stay a tenth of a core,
# however many nodes a machine has; a few are asked often, to be known as healthy soon.
_INTERVAL_S_MIN: Final = 5
_FEW: Final = 4
_S_PER_NODE: Final = 3


def compose_text(
    names: Sequence[str], *, user: tuple[int, int] | None, has_prometheus: bool
) -> str:
    """Return compose.yaml for nodes of these names, each with its directory beside the file.

    `user` (user id, group id) runs them; None leaves it to the image.
    """
    as_user = "" if user is None else f'user: "{user[0]}:{user[1]}"\n  '
    interval_s = _INTERVAL_S_MIN if len(names) <= _FEW else _S_PER_NODE * len(names)
    parts = [_HEAD.format(image=IMAGE, user=as_user, interval_s=interval_s)]
    parts += [_NODE.format(name=name, network=NETWORK) for name in names]
    if has_prometheus:
        parts.append(_PROMETHEUS)
    return "".join(parts)


def prometheus_text(names: Sequence[str]) -> str:
    """Return prometheus.yml, which asks every node and reads all alert rules in RULES_DIRECTORY."""
    targets = ", ".join(f"{name}:{HTTP_PORT}" for name in names)
    return (
        "global: {scrape_interval: 10s, evaluation_interval: 10s}\n"
        f"rule_files: [{RULES_DIRECTORY}/*.yml]\n"
        "scrape_configs:\n"
        "  - job_name: p2pcity\n"
        f"    static_configs: [{{targets: [{targets}]}}]\n"
    )
