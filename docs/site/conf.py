"""Settings of Sphinx for the site, used by `build.py` beside this file. Nothing is executed or fetched."""

from __future__ import annotations

project = "fusmae-lite"
author = "The fusmae-lite authors"
copyright = "the fusmae-lite authors, Apache-2.0"
extensions = ["myst_nb"]
root_doc = "index"
language = "en"

# Stored outputs only; of a viewer its picture, which stands beside the widget.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "image/png", 0)]

myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto"]
# Prose cells of a notebook may open with a heading of any level: each is a fragment of one page.
suppress_warnings = ["myst.header"]

html_theme = "sphinx_book_theme"
html_title = "fusmae-lite"
html_static_path = ["_static"]
exclude_patterns = ["files"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "light"}
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses for files

# One file with every extension, drawing in SVG: needs neither fonts nor further files, which Firefox keeps from file://.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"tex": {"tags": "none"}, "options": {"enableMenu": False}}
