"""The previous release, built as a wheel and installed in a virtual environment of its own.

It is the newest tag of a version (`v...`) below HEAD. The environment has this project's code from
the wheel alone, and the libraries of the present one.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
FIRST: Final = "86bb6997dc10a724f48939bc769087b1ee45d8c6"
"""What counts as the previous release until a version is tagged: the last commit before saved
indexes of the log, units for systemd, metrics, and today's pings and credit on the streams."""
_SECONDS: Final = 300


def find_commit() -> str:
    """The commit of the previous release; skips the test where git's history does not have it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone: the previous release is built from git's history")
    tags = _must(
        *("git", "-C", str(ROOT), "tag", "--list", "v[0-9]*", "--sort=-version:refname"),
        *("--merged", "HEAD", "--no-contains", "HEAD"),
    ).split()
    name = tags[0] if tags else FIRST
    found = _run("git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found.returncode != 0:
        pytest.skip(f"git's history does not reach {name}: fetch all of it (a shallow clone?)")
    return found.stdout.strip()


def install(cache: Path) -> tuple[str, ...]:
    """Return what runs its command line; it is built and installed below `cache` once a commit."""
    commit = find_commit()
    present = zlib.crc32(f"{sys.prefix} {sys.version}".encode())
    # `LocalNode` knows its processes by this word.
    home = cache / f"p2pcity-{commit[:12]}-{present:08x}"
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=cache) as name:
            made = Path(name) / "made"
            made.mkdir()
            _install(commit, made)
            try:
                made.rename(home)
            except OSError:
                # Another process of the tests was faster.
                assert home.exists()
    # -P: not what lies in the present directory, which may be this very tree.
    program = (str(home / "venv" / "bin" / "python"), "-P")
    found = Path(_must(*program, "-c", "import p2pcity; print(p2pcity.__file__)").strip())
    assert found.is_relative_to(home), f"{found} is not the previous release"
    return *program, "-m", "p2pcity"


def _install(commit: str, made: Path) -> None:
    source, archive, environment = made / "source", made / "source.tar", made / "venv"
    source.mkdir()
    _must("git", "-C", str(ROOT), "archive", "-o", str(archive), commit)
    _must("tar", "-xf", str(archive), "-C", str(source))
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    built = _run(*pip, "wheel", "--no-deps", "-w", str(made), str(source))
    if built.returncode != 0:
        pytest.skip(f"pip can't build {commit[:12]}: {built.stderr.strip()[-300:]}")
    [wheel] = made.glob("*.whl")
    _must(sys.executable, "-m", "venv", "--without-pip", str(environment))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = environment / "lib" / version / "site-packages"
    _must(*pip, "install", "--no-deps", "--no-index", "-t", str(own), str(wheel))
    # A path alone: the .pth files there, one of which may name this tree, are not followed.
    libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    shutil.rmtree(source)
    archive.unlink()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _must(*command: str) -> str:
    done = _run(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
