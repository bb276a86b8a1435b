"""Settings of the site that `make docs` builds: Sphinx, MyST and furo; nothing of it is fetched from elsewhere.

Reference pages hold lines such as `% generated: recipe`, in whose place `generated.py` puts what it reads off the code.
Links to files that are not part of the site become the file's name, and a file that does not exist is an error, as
every warning is.
"""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

from featherweight.core.silence import silence

silence()
import draw
import generated

project = "Featherweight"
author = "The Featherweight authors"
project_copyright = "The Featherweight authors; Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "adr/000-template.md", "static"]
nitpicky = True
smartquotes = False  # they make an option's two hyphens a dash
nitpick_ignore_regex = [
    ("py:.*", r"(?!featherweight\.).*"),  # other projects' names, whose indexes would be fetched
    ("py:.*", r"featherweight\.(core|apps)\..*"),  # types in signatures that are not part of the API
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["misc.highlighting_failure"]  # terminal sessions that are no whole program of their language

html_theme = "furo"
html_title = "Featherweight"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"source_view_link": "", "top_of_page_buttons": []}
html_last_updated_fmt = None

INCLUDED = ("security", "contributing", "changes")
"""Pages whose text lies in the folder above, and so do the files that they link to."""


class Diagram(SphinxDirective):
    """A diagram of mermaid, as it was drawn once from this very source (draw.py says how): to draw it here would take a
    browser, and in the reader's a script of 3 MB. GitHub draws it by itself."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        drawn = draw.path_of(text)
        if not drawn.is_file():
            raise self.error(f"no {drawn.relative_to(ROOT)}: draw the diagram, as docs/draw.py says")
        uri = f"/{drawn.relative_to(DOCS).as_posix()}"
        return [nodes.image(text, uri=uri, alt=f"The diagram with this source: {text}", classes=["diagram"])]


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    """Put what is generated into a page."""
    source[0] = generated.fill_in(source[0])


def name_files(app: Sphinx, document: nodes.document) -> None:
    """A link to a file or folder of the source that is not a page of the site becomes its name."""
    folder = ROOT if app.env.docname in INCLUDED else DOCS / Path(app.env.docname).parent
    for link in [*document.findall(addnodes.pending_xref), *document.findall(addnodes.download_reference)]:
        target = unquote(str(link.get("reftarget", ""))).partition("#")[0]
        if target and not ("reftype" in link and link["reftype"] not in (None, "myst")):
            places = [folder / target, folder / f"{target}.md"]
            found = next((place.resolve() for place in places if place.exists()), None)
            if found is not None and not _is_page(found):
                link.replace_self(nodes.inline("", "", *link.children, classes=["file"]))


def _is_page(path: Path) -> bool:
    return path.suffix == ".md" and path.is_relative_to(DOCS)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("mermaid", Diagram)
    app.connect("source-read", fill_in)
    app.connect("doctree-read", name_files)
    return {"parallel_read_safe": True}
