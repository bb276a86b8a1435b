"""Draws the diagrams of the documentation: python docs/draw.py MERMAID.JS, when one has changed.

MERMAID.JS is `package/dist/mermaid.min.js` of `npm pack mermaid@11`; chromium must be installed. Each diagram becomes
docs/static/diagrams/DIGEST.svg, where DIGEST is that of its source: the site takes it from there and needs neither.
"""

import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
DRAWN = DOCS / "static" / "diagrams"
CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom")
# Without HTML in labels: browsers show none in a picture.
PAGE = """<meta charset="utf-8"><pre></pre><script src="SCRIPT"></script><script>
mermaid.initialize({startOnLoad: false, htmlLabels: false, flowchart: {htmlLabels: false}, theme: "neutral",
                    fontFamily: "sans-serif"});
mermaid.render("diagram", SOURCE).then(({svg}) => {
  const tree = new DOMParser().parseFromString(svg, "text/html").querySelector("svg");
  document.querySelector("pre").textContent = new XMLSerializer().serializeToString(tree);
});
</script>"""


def sources() -> list[str]:
    """Every diagram of the pages, as the site's directive sees it."""
    pages = (path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md")))
    return [text for page in pages for text in re.findall(r"^```mermaid\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)]


def path_of(source: str) -> Path:
    """The picture of a diagram with this source."""
    return DRAWN / f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def draw(source: str, script: Path) -> str:
    """The picture as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(
            PAGE.replace("SCRIPT", script.resolve().as_uri()).replace("SOURCE", json.dumps(source)), "utf-8"
        )
        words = [*CHROMIUM, page.as_uri()]
        shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    return html.unescape(shown.partition("<pre>")[2].partition("</pre>")[0])


if __name__ == "__main__":
    for old in DRAWN.glob("*.svg"):
        old.unlink()
    for one in sources():
        path_of(one).write_text(draw(one, Path(sys.argv[1])) + "\n", "utf-8")
        sys.stdout.write(f"{path_of(one)}\n")
