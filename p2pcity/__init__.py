"""p2pcity: peer nodes that order, prove and serve a city's events."""


def __getattr__(name: str) -> str:
    """Return `__version__`; looking it up takes longer than many a command, which needs none."""
    if name != "__version__":
        raise AttributeError(f"module 'p2pcity' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("p2pcity")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0.1.0"
