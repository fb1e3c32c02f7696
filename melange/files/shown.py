"""What a value says of itself: one short line, and in a notebook a small HTML table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

LONGEST_REPR = 200


def short_repr(kind: str, text: str) -> str:
    """``kind(text)`` on one line of at most :data:`LONGEST_REPR` characters."""
    line = " ".join(text.split())
    room = LONGEST_REPR - len(kind) - 2
    return f"{kind}({line if len(line) <= room else line[: room - 4].rstrip() + ' ...'})"


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> str:
    """A table under a title, with notes below it; None is an empty cell and every text is escaped."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    parts = [
        f"<p><b>{escape(title)}</b></p>",
        f'<table class="dataframe">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>',
        *(f"<p>{escape(note)}</p>" for note in notes),
    ]
    return "\n".join(parts)


def number(value: float | None, digits: int = 2) -> str:
    """A number with this many decimals; empty for None."""
    return "" if value is None else f"{value:,.{digits}f}"


def share(value: float | None, digits: int = 1) -> str:
    """A fraction in percent; empty for None."""
    return "" if value is None else f"{value:.{digits}%}"


def _cell(value: object) -> str:
    return f"<td>{'' if value is None else escape(str(value))}</td>"


def clock_text(seconds: float) -> str:
    """``1:02:03`` hours, minutes and seconds; days in front where there are any."""
    sign, whole = ("-" if seconds < 0 else ""), round(abs(seconds))
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return sign + (f"{days} d {text}" if days else text)


def span_text(start_s: float, length_s: float) -> str:
    """``0:27:39 to 0:30:43``."""
    return f"{clock_text(start_s)} to {clock_text(start_s + length_s)}"
