from parley_crypto.pseudonym import pseudonym, sector_key

KEY, SEED = bytes(range(32)), bytes([1]) * 32
# Made once: a pseudonym that changed would be another customer to every marketer.
SECTOR = "0616a424ead7617e560b88be466bfa53e2cf114a6d0d311c320a9677f129c47d"
PSEUDONYM = "yqewocducghfzf7ipldvf2wzlwknnlpj"


def test_pseudonyms_have_not_drifted() -> None:
    assert SECTOR == sector_key(KEY, "Example Ltd", 3).hex()
    assert PSEUDONYM == pseudonym(SEED, sector_key(KEY, "Example Ltd", 3))


def test_pseudonym_is_another_for_every_entity_epoch_seed_and_key() -> None:
    sectors = [
        sector_key(KEY, "Example Ltd", 3),
        sector_key(KEY, "Example Ltd.", 3),
        sector_key(KEY, "Example Ltd", 4),
        sector_key(bytes(32), "Example Ltd", 3),
    ]
    names = {pseudonym(seed, sector) for seed in (SEED, bytes(32)) for sector in sectors}

    assert 8 == len(names)


def test_epoch_does_not_slide_into_the_entity() -> None:
    assert sector_key(KEY, "\0", 0) != sector_key(KEY, "", 0)
    assert sector_key(KEY, "a", 0x61) != sector_key(KEY, "aa", 0)


def test_pseudonym_is_32_characters_that_names_allow() -> None:
    for number in range(64):
        name = pseudonym(bytes([number]) * 32, sector_key(KEY, "Example Ltd", number))
        assert 32 == len(name)
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz234567")
