"""The page as one file that asks nothing of any server.

All data is in it as JSON that no parser of HTML can take for a tag; the scripts in `assets/` make elements of it and
never HTML. A Content-Security-Policy lets the scripts of this page run, each named by its SHA-256, and nothing else.
The chart library lies in it as text, which the page runs once it has been painted.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from analysis.figures.style import Drawn

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("elements", "charts", "accuracy", "comparisons", "training", "runs", "answers", "provenance", "begin")
"""The files of the page's own script, in order; they share one scope."""
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'"
)
UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}
"""Letters that could end a script element, begin a comment or a reference, or break a line."""


def written(content: Mapping[str, Any]) -> str:
    """The page of what `report.content` gives."""
    page, library = _script(), get_plotlyjs().replace("\r\n", "\n")
    study = content["study"]
    data = {key: value for key, value in content.items() if key != "figures"}
    parts = {
        "policy": html.escape(POLICY.format(scripts=" ".join(map(hashed, (page, library))))),
        "title": html.escape(content["title"]),
        "question": _sentence(study["question"]),
        "verdict": _sentence(study["verdict"]),
        "style": _text("page.css"),
        "data": embedded(data),
        "figures": embedded(content["figures"]),
        "page": page,
        "library": library,
    }
    # in one pass: what is put in is not searched
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text("page.html"))


def hashed(script: str) -> str:
    """A script as the policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def embedded(value: Any) -> str:
    """JSON for inside a script element."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).translate(UNSAFE)


def figures(drawn: Mapping[str, Drawn]) -> list[dict[str, Any]]:
    """The figures of the paper with their captions; pictures as data URIs."""
    told = []
    for name, figure in drawn.items():
        path = next(path for path in figure.files if path.suffix == ".png")
        picture = base64.b64encode(path.read_bytes()).decode()
        told.append(
            {
                "name": name.replace("_", " "),
                "caption": figure.caption,
                "gaps": list(figure.gaps),
                "picture": f"data:image/png;base64,{picture}",
            }
        )
    return told


def _script() -> str:
    return "\n".join(['"use strict";', "(() => {", *(_text(f"{name}.js") for name in SCRIPTS), "})();", ""])


def _sentence(text: str) -> str:
    """Escaped; a number stays on the line of its sign."""
    return re.sub(r"[\d.]+ %", r'<span class="together">\g<0></span>', html.escape(text))


def _text(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null. Numbers of numpy become plain ones."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
