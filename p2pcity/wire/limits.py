"""The limits and intervals that all nodes share; protocol/parameters.toml has the same numbers.

Units are last in each name. A test compares this module with the file key by key.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1
PROTOCOL_VERSION_OLDEST: Final = 1
RULES_VERSION: Final = 1

CBOR_DEPTH_MAX: Final = 16

EVENT_BYTES_MAX: Final = 32 * 1024
EVENTS_MAX: Final = 256
TRANSACTION_BYTES_MAX: Final = 64 * 1024
BLOCK_BYTES_MAX: Final = 1024 * 1024
CHANGE_BYTES_MAX: Final = 64 * 1024
CHANGE_STEPS_MAX: Final = 32
GOSSIP_BYTES_MAX: Final = 65 * 1024
GOSSIP_MESSAGES_PER_SECOND_MAX: Final = 20
GENESIS_BYTES_MAX: Final = 1024 * 1024
HELLO_BYTES_MAX: Final = 16 * 1024
RAFT_MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
BULK_PIECE_BYTES_MAX: Final = 128 * 1024
SYNC_IDS_MAX: Final = 1000

EXPIRES_AHEAD_MS_MAX: Final = 24 * 60 * 60 * 1000
CLOCK_AHEAD_MS_MAX: Final = 5000

BLOCKS_IN_FLIGHT_MAX: Final = 4
UNCOMMITTED_BYTES_MAX: Final = 16 * 1024 * 1024
APPEND_IN_FLIGHT_BYTES_MAX: Final = 2 * 1024 * 1024

BASE_INTERVAL_BLOCKS: Final = 256
BASE_HEAD_BYTES_MAX: Final = 1024 * 1024
BASE_RECORDS_MAX: Final = 16384
