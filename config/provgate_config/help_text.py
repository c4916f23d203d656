"""Help texts in which no name is cut."""

from __future__ import annotations

from collections.abc import Iterable

import click

# It looks like a hyphen, and lines are not broken at it.
_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class HelpFormatter(click.HelpFormatter):
    """Breaks lines at spaces alone, where click breaks them at hyphens too, and in the middle of long words."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Writes the line of the usage."""
        super().write_usage(prog.replace("-", _HYPHEN), args.replace("-", _HYPHEN), prefix)

    def write_text(self, text: str) -> None:
        """Writes a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Writes terms and what they mean, the terms in a column that leaves room for the longest word beside it."""
        kept = [(term, text.replace("-", _HYPHEN)) for term, text in rows]
        longest = max((len(word) for _, text in kept for word in text.split()), default=0)
        super().write_dl(kept, max(0, min(col_max, self.width - longest - col_spacing - 2)), col_spacing)

    def getvalue(self) -> str:
        """Returns what was written."""
        return super().getvalue().replace(_HYPHEN, "-")


def keep_names_whole() -> None:
    """Makes the help texts of this program's commands keep names whole; for the module of its command line."""
    click.Context.formatter_class = HelpFormatter
