"""The query book as a table for a terminal, and as plain values."""

from typing import Any

from rich.table import Table

from exporters.clickhouse.book import queries


def book_rows() -> list[dict[str, Any]]:
    """Return the query book as plain values: name, section, title, question, parameters."""
    return [
        {
            "name": page.name,
            "section": page.section,
            "title": page.title,
            "question": page.question,
            "parameters": {each.name: {"type": each.type, "default": each.default} for each in page.parameters},
        }
        for page in queries()
    ]


def book_table() -> Table:
    """Return the query book for a terminal."""
    table = Table("name", "asks", "parameters", title="The query book", title_justify="left")
    section = ""
    for page in queries():
        if page.section != section:
            section = page.section
            table.add_section()
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(
            page.name, page.question, ", ".join(f"{each.name}={each.default}" for each in page.parameters)
        )
    return table
