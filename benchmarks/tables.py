"""Write the tables of `docs/benchmarks.md` from the kept results in `benchmarks/results/`.

    python benchmarks/tables.py

A kept result is a JSON file named by its date. A table of the page is between `<!-- table: NAME -->` and
`<!-- end -->`. It is made of the newest file `YYYY-MM-DD_NAME.json`. A cell is a number, a list of
numbers, or a string. Numbers are written by the format of their column.
"""

import json
import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text()))


def with_tables(page: str) -> str:
    """Return the page with each of its tables made anew."""
    return PLACE.sub(lambda place: place[1] + "\n" + table(newest(place[2])) + "\n\n" + place[3], page)


def newest(name: str) -> dict[str, Any]:
    """Return the newest kept result of that name."""
    files = sorted(RESULTS.glob(f"????-??-??_{name}.json"))
    if not files:
        raise FileNotFoundError(f"There is no result of {name!r} in {RESULTS}.")
    return json.loads(files[-1].read_text())


def table(result: dict[str, Any]) -> str:
    """Return a result as a Markdown table, with where it comes from below."""
    rows = [
        [cell(value, form) for value, form in zip(row, result["formats"], strict=True)]
        for row in result["rows"]
    ]
    lines = [result["columns"], ["---"] + ["---:"] * (len(result["columns"]) - 1), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n`{result['script']}`, {result['measured']}: {result['setting']}."


def cell(value: Any, form: str) -> str:
    if isinstance(value, str):
        return value
    return form.format(*value) if isinstance(value, list) else form.format(value)


if __name__ == "__main__":
    main()
