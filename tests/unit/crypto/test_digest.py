import hashlib

import pytest

from p2pcity.crypto.digest import digest, sha256


def test_sha256_is_the_standard_one() -> None:
    # FIPS 180-4's example "abc".
    assert sha256(b"abc").hex().startswith("ba7816bf8f01cfea414140de5dae2223")


def test_digest_puts_the_length_and_the_domain_in_front() -> None:
    expected = hashlib.sha256(b"\x0fp2pcity/block/1" + b"header").digest()
    assert digest("p2pcity/block/1", b"header") == expected


def test_a_domain_cannot_run_into_the_data() -> None:
    assert digest("a", b"bc") != digest("ab", b"c")


@pytest.mark.parametrize("domain", ["", "a" * 256, "straße"])
def test_a_bad_domain_is_a_bug(domain: str) -> None:
    with pytest.raises(AssertionError):
        digest(domain, b"")
