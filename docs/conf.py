"""How Sphinx builds the documentation: `make docs`."""

from loadwise import __version__

project = "loadwise"
author = "The loadwise authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Docstrings name things in single backticks; where the name is documented, it becomes a link.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# A longer signature has a line for each parameter.
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
# An attribute described on its class is described there and not once more as a member.
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_heading_anchors = 3

html_theme = "furo"
html_title = f"loadwise {__version__}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
