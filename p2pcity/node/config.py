"""The table of settings: every key, its type, its default and what it does, one class a section.

`config_reading` fills it from the file, the environment and flags; `p2pcity config`, the
documentation and validation all derive from the fields here. Units stand last in a key's name.
What a whole network shares is not here: see the genesis file and protocol/parameters.toml.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, get_type_hints

_MIB: Final = 1024 * 1024

# Heartbeat interval and election time-out in ms; a follower adds up to the same again at random.
RAFT_PRESETS: Final[dict[str, tuple[int, int]]] = {
    "local": (50, 500),
    "lan": (100, 1000),
    "wan": (400, 4000),
}


def _key(
    default: Any,
    says: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: int | None = None,
    maximum: int | None = None,
) -> Any:
    metadata = {"says": says, "choices": choices, "minimum": minimum, "maximum": maximum}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class NodeSection:
    """[node]: who this node is, and where its files are."""

    name: str = _key("main", "Name of this node within its member.")
    member: str = _key("", "Name of the member that runs this node.")
    role: str = _key(
        "orderer",
        "What this node is for; it must be what the genesis says of it.",
        choices=("orderer", "observer"),
    )
    data_dir: Path = _key(Path("data"), "Directory of the ledger: log/, outbox.db, views.db.")
    genesis: Path = _key(Path("genesis.cbor"), "The network's genesis file.")
    key: Path = _key(Path("node.key"), "Private key of the node (PKCS #8, mode 0600).")
    author_key: Path | None = _key(
        Path("author.key"),
        "Private key that signs what POST /v1/events brings; empty: the node signs for nobody.",
    )


@dataclass(frozen=True, slots=True)
class NetSection:
    """[net]: how this node meets its peers."""

    listen: tuple[str, ...] = _key(
        ("/ip4/0.0.0.0/tcp/4710",), "Multiaddrs to listen on, without /p2p/; port 0 takes any."
    )
    announce: tuple[str, ...] = _key(
        (), "Multiaddrs told to peers; empty: those of `listen` that others can dial."
    )
    peers: tuple[str, ...] = _key(
        (), "Further addresses of peers, each with its /p2p/; the genesis lists the first ones."
    )
    mdns: bool = _key(True, "Whether to look for peers, and to be found, on the local network.")
    connections_max: int = _key(
        256, "Connections kept at once; beyond, new ones are refused.", minimum=8, maximum=65536
    )
    silence_ms: int = _key(
        3000,
        "A peer that was not heard for so long is cut off and dialled again.",
        minimum=200,
        maximum=600_000,
    )


@dataclass(frozen=True, slots=True)
class HttpSection:
    """[http]: the API, on the Unix socket always and on TCP when `bind` is set."""

    socket: Path | None = _key(
        None, "The Unix socket; empty: by the place of the configuration (see `p2pcity config`)."
    )
    socket_mode: str = _key(
        "0660", "File mode of the Unix socket, octal: it decides who may use it."
    )
    bind: str = _key("", "HOST:PORT for HTTP over TCP, for example 127.0.0.1:4711; empty: off.")
    tokens_file: Path | None = _key(
        None, "File with `read TOKEN` or `write TOKEN` a line, for TCP; empty: no writes over TCP."
    )
    read_by_token: bool = _key(False, "Whether reading over TCP needs a token too.")
    tls_certificate_file: Path | None = _key(None, "PEM certificate chain; empty: no TLS.")
    tls_key_file: Path | None = _key(None, "PEM private key of the certificate (mode 0600).")
    connections_max: int = _key(
        640, "TCP connections served at once; beyond, new ones wait.", minimum=4, maximum=65536
    )


@dataclass(frozen=True, slots=True)
class RaftSection:
    """[raft]: the clock of ordering; equal on all nodes of a network."""

    preset: str = _key(
        "lan",
        "Times that fit one machine (50/500 ms), one site (100/1000) or several (400/4000).",
        choices=tuple(RAFT_PRESETS),
    )
    heartbeat_interval_ms: int = _key(
        0, "How often a leader is heard; 0: as the preset says.", minimum=0, maximum=60_000
    )
    election_timeout_ms: int = _key(
        0,
        "Silence after which a follower campaigns, plus as much at random; 0: by the preset.",
        minimum=0,
        maximum=600_000,
    )

    promotion_ms: int = _key(
        10_000,
        "How long a node that was added to vote must have kept up before it votes.",
        minimum=0,
        maximum=86_400_000,
    )

    @property
    def times_ms(self) -> tuple[int, int]:
        """The heartbeat interval and the election time-out in force, in ms."""
        heartbeat, election = RAFT_PRESETS[self.preset]
        return self.heartbeat_interval_ms or heartbeat, self.election_timeout_ms or election


@dataclass(frozen=True, slots=True)
class MempoolSection:
    """[mempool]: what is admitted and waits to be ordered."""

    bytes_max: int = _key(
        64 * _MIB, "Room for all waiting transactions.", minimum=_MIB, maximum=4096 * _MIB
    )
    author_bytes_max: int = _key(
        16 * _MIB, "Room for one author's waiting transactions.", minimum=_MIB, maximum=4096 * _MIB
    )
    transactions_max: int = _key(
        131_072, "Number of waiting transactions.", minimum=1024, maximum=16_777_216
    )


@dataclass(frozen=True, slots=True)
class AdmissionSection:
    """[admission]: how much one peer and one author may bring."""

    peer_transactions_per_second_max: int = _key(
        4000, "What one peer may gossip, on average.", minimum=1, maximum=1_000_000
    )
    author_transactions_per_second_max: int = _key(
        5000, "What one author may bring, on average.", minimum=1, maximum=1_000_000
    )


@dataclass(frozen=True, slots=True)
class LedgerSection:
    """[ledger]: how the disk is used."""

    segment_bytes_max: int = _key(
        64 * _MIB, "Size at which a new log file begins.", minimum=_MIB, maximum=1024 * _MIB
    )
    keep_blocks: int = _key(
        0,
        "How many of the newest blocks are kept at least; older ones go, 256 at a time. 0: all.",
        minimum=0,
        maximum=2**37,
    )
    disk_free_bytes_min: int = _key(
        512 * _MIB,
        "Below so much free space the node takes no more transactions and says so.",
        minimum=0,
        maximum=2**50,
    )


@dataclass(frozen=True, slots=True)
class LogsSection:
    """[logs]: what the daemon writes to its standard output."""

    level: str = _key(
        "info", "Least severe line written.", choices=("debug", "info", "warning", "error")
    )
    format: str = _key(
        "auto",
        "json, text, or auto: text on a terminal, else JSON.",
        choices=("auto", "json", "text"),
    )


@dataclass(frozen=True, slots=True)
class TelemetrySection:
    """[telemetry]: traces for OpenTelemetry; needs the extra p2pcity[otel]."""

    otlp_endpoint: str = _key(
        "",
        "Base URL of an OTLP/HTTP collector, for example http://127.0.0.1:4318; empty: off.",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one node; every path in it is absolute once it was read."""

    node: NodeSection = field(default_factory=NodeSection)
    net: NetSection = field(default_factory=NetSection)
    http: HttpSection = field(default_factory=HttpSection)
    raft: RaftSection = field(default_factory=RaftSection)
    mempool: MempoolSection = field(default_factory=MempoolSection)
    admission: AdmissionSection = field(default_factory=AdmissionSection)
    ledger: LedgerSection = field(default_factory=LedgerSection)
    logs: LogsSection = field(default_factory=LogsSection)
    telemetry: TelemetrySection = field(default_factory=TelemetrySection)


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table: a setting, as `p2pcity config` and the documentation show it."""

    section: str
    name: str
    type: Any
    default: object
    says: str
    choices: tuple[str, ...]
    minimum: int | None
    maximum: int | None

    @property
    def path(self) -> str:
        """The setting's name with its section: `net.listen`."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it: `P2PCITY_NET_LISTEN`."""
        return f"P2PCITY_{self.section}_{self.name}".upper()


def _rows() -> Iterator[Key]:
    for section, make in section_types().items():
        hints = get_type_hints(make)
        for item in fields(make):
            yield _row(section, item, hints[item.name])


def _row(section: str, item: Field[Any], type_: Any) -> Key:
    about = item.metadata
    return Key(
        section,
        item.name,
        type_,
        item.default,
        about["says"],
        about["choices"],
        about["minimum"],
        about["maximum"],
    )


def section_types() -> dict[str, type[Any]]:
    """Each section's name and the class that holds it."""
    return get_type_hints(Config)


KEYS: Final[dict[str, Key]] = {row.path: row for row in _rows()}
"""Every setting by its `section.name`, in the order of the file."""
