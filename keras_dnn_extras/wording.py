"""Words of messages that depend on numbers."""


def counted(count: int, noun: str) -> str:
    """Return `count` with the singular or the plural of `noun`: `1 layer`, `2,000 layers`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
