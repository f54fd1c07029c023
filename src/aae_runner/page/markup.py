"""Elements of HTML and SVG, in which every text is escaped because no text is ever joined to markup."""

from xml.etree.ElementTree import Element


def element(name: str, /, *content: Element | str, **attributes: str | float) -> Element:
    """An element with its content in order.

    Args:
        name: of the element.
        content: elements, and texts as they are to be read.
        attributes: `class_` is written class, `aria_label` aria-label.
    """
    made = Element(name, {key.rstrip("_").replace("_", "-"): f"{value}" for key, value in attributes.items()})
    for one in content:
        if not isinstance(one, str):
            made.append(one)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + one
        else:
            made.text = (made.text or "") + one
    return made


def table(header: list[str], lines: list[list[Element]], caption: str, kind: str = "") -> Element:
    """A table in a box of its own, in which it scrolls where it is too wide; empty columns are left out.

    Args:
        header: of its columns.
        lines: cells (`th` or `td`), a list each line.
        caption: a text above it.
        kind: its class.
    """
    kept = [place for place in range(len(header)) if any("".join(line[place].itertext()) for line in lines)]
    head = element("tr", *(element("th", header[place], scope="col") for place in kept))
    body = (element("tr", *(line[place] for place in kept)) for line in lines)
    made = element("table", element("thead", head), element("tbody", *body), class_=kind, aria_label=caption)
    return element(
        "figure",
        element("figcaption", caption),
        element("div", made, class_="box", tabindex=0, role="region", aria_label=caption),
        class_="table",
    )
