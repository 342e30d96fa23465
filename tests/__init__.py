"""The tests: unit/ by room, integration/ with real processes, tidy rules beside this file."""
