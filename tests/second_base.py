"""A second reading of bases (07), importing nothing of p2pcity."""

from typing import Any

from tests.second_reader import binary, decode, digest, fields, need, number

TIME_MAX = 253_402_300_799_999


def judge_base(given: dict[str, Any]) -> dict[str, Any]:
    """The chain over an interval's records, or what a head says."""
    data = bytes.fromhex(given["data"])
    if given["what"] == "head":
        return _read_head(data)
    chain, height = bytes.fromhex(given["chain"]), given["height"]
    blocks: dict[int, bytes] = {height + at: b"" for at in range(1, 257)}
    last = height
    for at in range(0, len(data), 48):
        record = data[at : at + 48]
        own = int.from_bytes(record[32:40], "big") >> 26
        need(own in blocks and own >= last)
        blocks[own] += record
        last = own
    chains = []
    for block in blocks.values():
        chain = digest("p2pcity/records/1", chain + block)
        chains.append(chain.hex())
    return {"first": chains[0], "chain": chains[-1]}


def _read_head(data: bytes) -> dict[str, Any]:
    names = "network height hash time index term size peaks city events dropped marks"
    head = fields(decode(data), *names.split())
    height = number(head["height"], 256, 2**37 - 1)
    need(height % 256 == 0)
    need(len(data) <= 1_048_576 + 40 * (height // 256), "size")
    binary(head["network"], 32)
    binary(head["hash"], 32)
    number(head["time"], 0, TIME_MAX)
    need(number(head["index"], 0, 2**64 - 1) >= height)
    for name in ("term", "events", "dropped"):
        number(head[name], 0, 2**64 - 1)
    size = number(head["size"], 0, 2**64 - 1)
    binary(head["peaks"], 32 * size.bit_count())
    binary(head["city"])
    marks = binary(head["marks"], 40 * (height // 256))
    counts = [int.from_bytes(marks[at + 32 : at + 40], "big") for at in range(0, len(marks), 40)]
    for before, after in zip([0, *counts], counts, strict=False):
        need(before <= after <= before + 2**23)
    return {
        "digest": digest("p2pcity/base/1", data).hex(),
        "records": counts[-1],
        "chain": marks[-40:-8].hex(),
    }
