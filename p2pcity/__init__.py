"""p2pcity: peer nodes that order, prove and serve a city's events."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("p2pcity")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.1.0"
