"""The HTTP surface, version 1, and the client that the command line uses.

Imports nothing here: `p2pcity.api.client` must be quick to import and needs neither trio nor
Starlette.
"""
