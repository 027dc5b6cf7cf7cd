"""Figures of the lab go to docs/operations.md, each to its row."""

from tests.lab import figures


def test_a_figure_has_its_row() -> None:
    """A new figure is added, an old one is replaced, and the rest of the page stays."""
    page = f"# Page\n{figures.BEGIN}{figures.HEAD}| a | trixie-netplan | 1 s |\n{figures.END}end\n"
    page = figures.updated(page, "b", "trixie-netplan", "2 s")
    page = figures.updated(page, "a", "trixie-netplan", "3 s")
    rows = "| a | trixie-netplan | 3 s |\n| b | trixie-netplan | 2 s |\n"
    assert page == f"# Page\n{figures.BEGIN}{figures.HEAD}{rows}{figures.END}end\n"


def test_the_page_has_a_place_for_figures() -> None:
    """docs/operations.md has one place for figures, with a table."""
    assert figures.PAGE.read_text().count(figures.BEGIN + figures.HEAD) == 1
    assert figures.PAGE.read_text().count(figures.END) == 1
