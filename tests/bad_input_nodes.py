"""The table of bad input to `init` and `run`: configurations, keys, genesis, disks, rights."""

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import free_ports
from tests.bad_input_city import Arrange, Command, CommandCase, Place, p2pcity


def _run(own: Path, *more: str, prefix: Sequence[str] = ()) -> Command:
    return Command(("run", "--config", own / "p2pcity.toml", *more), prefix=prefix)


def _run_with(*settings: str) -> Arrange:
    flags = [part for setting in settings for part in ("--set", setting)]
    return lambda place: _run(place.new_node(), *flags)


def _run_after(spoil: Callable[[Path], object]) -> Arrange:
    """Run a new node after something was done to its directory."""

    def arrange(place: Place) -> Command:
        own = place.new_node()
        spoil(own)
        return _run(own)

    return arrange


def _config(old: str, new: str) -> Arrange:
    def spoil(own: Path) -> None:
        file = own / "p2pcity.toml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    return _run_after(spoil)


def _here(*arguments: str, **environment: str) -> Arrange:
    return lambda place: Command(arguments, environment=environment)


def _taken_port(place: Place) -> Command:
    own = place.new_node()
    listener = place.stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
    port = listener.getsockname()[1]
    return _run(own, "--set", f"net.listen=/ip4/127.0.0.1/tcp/{port}")


def _taken_http_port(place: Place) -> Command:
    own = place.new_node()
    listener = place.stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
    return _run(own, "--set", f"http.bind=127.0.0.1:{listener.getsockname()[1]}")


def _locked(place: Place) -> Command:
    [port] = free_ports(1)
    return Command(
        (
            *("run", "--config", place.city.node.config_file),
            *("--set", f"net.listen=/ip4/127.0.0.1/tcp/{port}", "--set", "http.bind="),
        )
    )


def _other_data(place: Place) -> Command:
    own, other = LocalNetwork.create(place.directory / "other", nodes=2, orderers=1).nodes
    return _run(own.directory, "--data-dir", str(other.directory / "data"))


def _protected_key(place: Place) -> Command:
    passphrase = place.write("right", "right\n", 0o600)
    p2pcity("key", "new", "--passphrase-file", passphrase, place.directory / "a.key")
    wrong = place.write("wrong", "wrong\n", 0o600)
    return Command(("key", "show", "--passphrase-file", wrong, place.directory / "a.key"))


def _missing_passphrase(place: Place) -> Command:
    command = _protected_key(place)
    return Command(("key", "show", command.arguments[-1]))


def _init_twice(place: Place) -> Command:
    return Command(("init", place.new_node()))


# -- cases that need root ----------------------------------------------------------------------


def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount and drop capabilities here")


def small_disk(place: Place, size: str) -> Path:
    """Mount a disk of so many bytes, which goes away with the case; skip where that can't be."""
    _needs_root()
    disk = place.directory / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    place.stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
    return disk


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Leave so many bytes free on a disk; return the file that holds the rest."""
    file = disk / "ballast"
    size = 0
    with file.open("wb") as stream:
        for _ in range(100):
            room = os.statvfs(disk)
            more = room.f_bavail * room.f_frsize - leave_bytes
            if more <= 0:
                break
            try:
                os.posix_fallocate(stream.fileno(), size, more)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                # The node wrote between the two calls: there is less room than there was.
                continue
            size += more
        else:
            raise AssertionError(f"{disk} does not fill up")
    return file


def _init_on_a_full_disk(place: Place) -> Command:
    disk = small_disk(place, "64k")
    fill(disk)
    return Command(("init", disk / "node"))


def _run_on_a_full_disk(place: Place) -> Command:
    own = place.new_node()
    disk = small_disk(place, "2m")
    shutil.copytree(own / "data", disk / "data")
    fill(disk)
    return _run(own, "--data-dir", str(disk / "data"))


def _read_only(place: Place) -> Command:
    own = place.new_node()
    disk = small_disk(place, "2m")
    shutil.copytree(own / "data", disk / "data")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return _run(own, "--data-dir", str(disk / "data"))


def _without_rights(place: Place) -> tuple[str, ...]:
    """Return the program in front under which the file modes count, for root too."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is missing: root would read everything")
    drop = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}")


def _few_open_files(place: Place) -> Command:
    few = ("sh", "-c", 'ulimit -n 200; exec "$@"', "sh")
    return _run(place.new_node(), prefix=few)


def _forbidden_data(place: Place) -> Command:
    own = place.new_node()
    (own / "data").chmod(0)
    place.stack.callback((own / "data").chmod, 0o700)
    return _run(own, prefix=_without_rights(place))


def _forbidden_configuration(place: Place) -> Command:
    own = place.new_node()
    own.chmod(0)
    place.stack.callback(own.chmod, 0o700)
    return _run(own, prefix=_without_rights(place))


def _forbidden_place(place: Place) -> Command:
    above = place.directory / "above"
    above.mkdir(mode=0o500)
    return Command(("init", above / "node"), prefix=_without_rights(place))


def _forbidden_socket(place: Place) -> Command:
    above = place.directory / "above"
    above.mkdir(mode=0o700)
    (above / "node.sock").touch()
    above.chmod(0)
    place.stack.callback(above.chmod, 0o700)
    return Command(("status", "--node", above / "node.sock"), prefix=_without_rights(place))


CONFIGURATION_CASES: Final = (
    CommandCase(
        "unknown configuration key",
        2,
        "key net.lissten is unknown",
        "Did you mean listen?",
        _config("listen =", "lissten ="),
    ),
    CommandCase(
        "unknown section",
        2,
        "section [nett] is unknown",
        "Did you mean net?",
        _config("[net]", "[nett]"),
    ),
    CommandCase(
        "key of the wrong type",
        2,
        "net.mdns is 'false'",
        "Use true or false.",
        _config("mdns = false", 'mdns = "false"'),
    ),
    CommandCase(
        "number out of range",
        2,
        "net.silence_ms is 1",
        "from 200 to 600000",
        _run_with("net.silence_ms=1"),
    ),
    CommandCase(
        "unknown word for a key", 2, "raft.preset", "Did you mean", _run_with("raft.preset=lam")
    ),
    CommandCase(
        "unknown setting on the command line",
        2,
        "setting net.mdn is unknown",
        "Did you mean net.mdns?",
        _run_with("net.mdn=false"),
    ),
    CommandCase(
        "unknown variable of the environment",
        2,
        "P2PCITY_NET_LISTN",
        "Did you mean P2PCITY_NET_LISTEN?",
        lambda place: Command(
            _run(place.new_node()).arguments, environment={"P2PCITY_NET_LISTN": "x"}
        ),
    ),
    CommandCase(
        "configuration that is no TOML",
        2,
        "p2pcity.toml",
        "Correct the TOML",
        _config("[net]", "[net"),
    ),
    CommandCase(
        "configuration that is not UTF-8",
        2,
        "not UTF-8",
        "as UTF-8 text",
        _run_after(lambda own: (own / "p2pcity.toml").write_bytes(b"# \xff\n")),
    ),
    CommandCase(
        "heartbeat above the election time-out",
        2,
        "raft.election_timeout_ms (500) is less than 5 heartbeats",
        "Raise raft.election_timeout_ms",
        _run_with("raft.heartbeat_interval_ms=600"),
    ),
    CommandCase(
        "an address that is no multiaddr",
        2,
        "127.0.0.1:4710",
        "/ip4/192.0.2.1/tcp/4710",
        _run_with("net.listen=127.0.0.1:4710"),
    ),
    CommandCase(
        "a multiaddr that can't be listened on",
        2,
        "/ip4/300.0.0.1/tcp/4710",
        "/ip4/",
        _run_with("net.listen=/ip4/300.0.0.1/tcp/4710"),
    ),
    CommandCase(
        "an address of another machine",
        2,
        "cannot listen on 192.0.2.1 port 4710",
        "an address of this machine",
        _run_with("net.listen=/ip4/192.0.2.1/tcp/4710"),
    ),
    CommandCase(
        "bad HOST:PORT", 2, "http.bind is '4711'", "127.0.0.1:4711", _run_with("http.bind=4711")
    ),
    CommandCase(
        "port taken", 2, "is taken by another process", "listen on another port", _taken_port
    ),
    CommandCase(
        "HTTP port taken",
        2,
        "Address already in use",
        "set http.bind to another port",
        _taken_http_port,
    ),
)

NODE_CASES: Final = (
    CommandCase("data directory locked", 12, "in use by process", "Stop that process", _locked),
    CommandCase(
        "data directory of another node",
        2,
        "it is the one of node2/node2",
        "its own data directory",
        _other_data,
    ),
    CommandCase(
        "run without init",
        2,
        "there is no such file",
        "p2pcity init DIR",
        _here("run", "--config", "nowhere/p2pcity.toml"),
    ),
    CommandCase(
        "run where no configuration is found",
        2,
        "no configuration was found",
        "p2pcity init DIR",
        _here("run", HOME="/nonexistent", XDG_CONFIG_HOME="/nonexistent"),
    ),
    CommandCase(
        "a node without its log",
        2,
        "data/log",
        "p2pcity init",
        _run_after(lambda own: shutil.rmtree(own / "data" / "log")),
    ),
    CommandCase("init over an existing node", 2, "exists already", "name another", _init_twice),
    CommandCase(
        "init with an address that is none",
        2,
        "not the text of a multiaddr",
        "--listen",
        _here("init", "node", "--listen", "nonsense"),
    ),
    CommandCase(
        "missing genesis",
        2,
        "there is no genesis file",
        "p2pcity genesis new",
        _run_after(lambda own: (own / "genesis.cbor").unlink()),
    ),
    CommandCase(
        "genesis cut off",
        2,
        "genesis.cbor",
        "Copy the genesis file again",
        _run_after(lambda own: os.truncate(own / "genesis.cbor", 100)),
    ),
    CommandCase(
        "another role than in the genesis",
        2,
        "node.role is 'observer'",
        "Set node.role to 'orderer'",
        _run_with("node.role=observer"),
    ),
    CommandCase(
        "key readable by the group",
        2,
        "others than its owner can use it (mode 0640)",
        "chmod 600",
        _run_after(lambda own: (own / "node.key").chmod(0o640)),
    ),
    CommandCase(
        "key that is garbage",
        2,
        "node.key: not a PKCS #8 private key",
        "Give the file that `p2pcity init` wrote",
        _run_after(lambda own: (own / "node.key").write_bytes(b"garbage\n")),
    ),
    CommandCase(
        "missing key",
        2,
        "author.key: No such file",
        "p2pcity key new",
        _run_after(lambda own: (own / "author.key").unlink()),
    ),
    CommandCase("wrong passphrase", 2, "a.key", "passphrase", _protected_key),
    CommandCase("no passphrase for a protected key", 2, "a.key", "passphrase", _missing_passphrase),
    CommandCase(
        "check of a running node",
        12,
        "in use by process",
        "Stop that process",
        lambda place: Command(("check", "--config", place.city.node.config_file)),
    ),
    CommandCase("init on a full disk", 11, "No space left", "Make room", _init_on_a_full_disk),
    CommandCase("run on a full disk", 2, "No space left", "Make room", _run_on_a_full_disk),
    CommandCase(
        "run on a read-only disk", 2, "cannot be read and written", "read-only", _read_only
    ),
    CommandCase(
        "run with few open files", 2, "limit of open files is 200", "LimitNOFILE", _few_open_files
    ),
    CommandCase("no permission on the data", 2, "data", "chown", _forbidden_data),
    CommandCase(
        "no permission on the configuration",
        2,
        "Permission denied",
        "readable for this user",
        _forbidden_configuration,
    ),
    CommandCase("no permission for init", 2, "Permission denied", "may write", _forbidden_place),
    CommandCase("no permission on the socket", 4, "may not connect", "group", _forbidden_socket),
)
