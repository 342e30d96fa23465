"""The demo: a city of four nodes that orders real events and survives its leader."""
