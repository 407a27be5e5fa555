"""What benchmarks write into the pages of docs/: text between two marks."""


def insert(page: str, name: str, text: str) -> str:
    """`page` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"no {begin} … {end} to write between")
    return f"{before}{begin}\n{text}\n{end}{after}"
