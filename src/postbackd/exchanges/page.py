"""An HTML page that needs nothing beside it: it can be mailed, and opened from a disk. Light or dark, as the reader is.

The page allows itself no script and no address (Content-Security-Policy), so that a text that slipped through the
escaping could do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1c2024;--soft:#60646c;--line:#d9d9e0;
--a:#2f6fde;--b:#e08a1e;--c:#c23b5a;--right:#18794e;--wrong:#b3261e}
@media(prefers-color-scheme:dark){:root{--ground:#16181b;--text:#edeef0;--soft:#a5a9b1;--line:#3a3d42;
--a:#6ea8ff;--b:#f0ac4c;--c:#f07a94;--right:#5fd39b;--wrong:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;
background:var(--ground);color:var(--text)}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}p,.soft{color:var(--soft)}
svg{display:block;max-width:45rem;width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--text)}svg text.soft{fill:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}
td.n{text-align:right;font-variant-numeric:tabular-nums}.right{color:var(--right)}.wrong{color:var(--wrong)}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_document(title: str, about: str, sections: Sequence[str]) -> str:
    """The whole page; ``title`` and ``about`` are texts, ``sections`` are HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(about)}</p>{''.join(sections)}</body></html>\n"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; ``heads`` are texts, each cell of ``rows`` is a whole ``td`` or ``th``."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number_cell(text: str) -> str:
    """A cell whose text stands to the right."""
    return f'<td class="n">{escape(text)}</td>'
