"""Writes the generated pages: ``python -m tools.docs``."""

from tools.docs import generated

for path, text in generated().items():
    path.write_text(text, encoding="utf-8")
