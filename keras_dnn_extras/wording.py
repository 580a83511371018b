"""Numbers in messages."""


def counted(count: int, noun: str) -> str:
    """Return `count` with the singular or the plural of `noun`: `1 layer`, `2,000 batches`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'ch', 'x')) else 's'}"
