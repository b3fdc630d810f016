"""The pairing by its definition, in sets of characters, for tests to compare with."""

import unicodedata


def merges(character: str) -> bool:
    """Whether normalizers may merge a character into the one before: accents, and jamo."""
    return unicodedata.combining(character) > 0 or 0x1160 <= ord(character) < 0x1200


def covered(tokenizer, text: str) -> list[set[int]]:
    """The characters of each token by transformers' own offsets.

    Where the tokenizer normalizes, an accent that no token covers belongs to its letter, and with
    it those behind: they may have changed places.
    """
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    found = [set(range(start, end)) for start, end in offsets["offset_mapping"]]
    anywhere = set().union(*found)
    for characters in filter(None, found):
        behind = max(characters) + 1
        if behind not in anywhere:
            while behind < len(text) and merges(text[behind]):
                characters.add(behind)
                behind += 1
    return found


def cuts(tokens: list[set[int]]) -> dict[int, int]:
    """Character -> the token at which everything before it was read, and nothing behind it."""
    found = {}
    for index, own in enumerate(tokens):
        before = set().union(*tokens[: index + 1])
        behind = set().union(*tokens[index + 1 :])
        if own and (not behind or max(before) < min(behind)):
            found[max(before) + 1] = index
    return found
