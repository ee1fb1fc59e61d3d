"""How Sphinx builds these pages: ``nox -s docs``."""

from importlib.metadata import version as version_of

project = "llm-queue"
author = "The llm-queue authors"
project_copyright = "2026, the llm-queue authors"
version = release = version_of("llm-queue")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
smartquotes = False  # it would make a dash of the two hyphens of a flag

html_theme = "alabaster"
html_theme_options = {"description": "One line in front of your local Ollama.", "fixed_sidebar": True}
html_show_sourcelink = False
