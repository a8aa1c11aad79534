"""HTML elements as text. Text from files is escaped here and nowhere else."""

from __future__ import annotations

import html

from mlperf.util.printable import one_line


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | None


def text(value: Content) -> Markup:
    """Return a value as HTML: HTML itself unchanged, other text escaped, nothing for None."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(one_line(value)))


def element(name: str, /, *children: Content, **attributes: Content) -> Markup:
    """Return an element. Names of attributes have _ for - and a trailing _ for Python's words; None omits one.

    >>> element("p", "1 < 2", class_="note", data_x=None)
    '<p class="note">1 &lt; 2</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(one_line(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{''.join(map(text, children))}</{name}>")


def joined(*children: Content) -> Markup:
    """Return elements one after the other, each on a line."""
    return Markup("\n".join(map(text, children)))


def table(head: list[Content], rows: list[list[Content]], *, class_: str | None = None) -> Markup:
    """Return a table. A cell that is HTML of a cell, such as a heading of its row, is taken as it is.

    A table whose headings are all empty has none.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    are_numbers = [all(cell.startswith(_NUMBER) for cell in column) for column in zip(*cells, strict=True)]
    headings = [
        element("th", cell, scope="col", class_="number" if is_number else None)
        for cell, is_number in zip(head, are_numbers, strict=True)
    ]
    top = element("thead", element("tr", *headings)) if any(head) else None
    body = element("tbody", *(element("tr", *row) for row in cells))
    return element("div", element("table", top, body, class_=class_), class_="scroll")


_NUMBER = '<td class="number"'


def _cell(cell: Content) -> Markup:
    if isinstance(cell, Markup) and cell.startswith(("<td", "<th")):
        return cell
    return element("td", cell, class_="number" if isinstance(cell, int | float) else None)
