"""What is put right in the pages after Sphinx has written them.

- The theme draws its icons twice: by a font, which browsers refuse to pages read from disk, and by 1.5 MB
  of script. The font moves into its style sheet, and the script goes.
- Maps of compressed sources and translations of the theme are for its makers; no page reads them.
- Formulas take 2 MB of MathJax, which pages without one do without.
- Thebe would run code on a server of others; nothing here uses it.
- Entries of the bibliography have a role that has been withdrawn from the standard.
"""

import base64
import re

FACE = re.compile(r"@font-face\{[^}]*\}")
FONT = re.compile(r"url\(\.\./webfonts/([\w-]+\.woff2)\)")
LEFT_OUT = (
    re.compile(r'[ \t]*<script src="[^"]*/fontawesome/[^"]*"></script>\n'),
    re.compile(r'[ \t]*<link rel="preload" as="font"[^>]*/>\n'),
    re.compile(r"[ \t]*<(script|link)[^>]*sphinx-thebe\.[^>]*>(</script>)?\n"),
    re.compile(r"[ \t]*<script>[^<]*THEBE_JS_URL[^<]*</script>\n"),
)
MATHJAX = re.compile(
    r"[ \t]*<script>window\.MathJax = [^<]*</script>\n|[ \t]*<script[^>]*mathjax[^>]*></script>\n"
)
UNREAD = (
    "_static/**/*.map",
    "_static/locales/**/*",
    "_static/vendor/fontawesome/*/js/*",
    "_static/vendor/fontawesome/*/webfonts/*",
)
FORMULA = re.compile(r'class="[^"]*\bmath\b')


def polish(folder):
    """Rewrite the pages under `folder`, and the style sheet of their icons."""
    for sheet in folder.glob("_static/vendor/fontawesome/*/css/all.min.css"):
        sheet.write_text(with_fonts(sheet), encoding="utf-8")
    for pattern in UNREAD:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                path.unlink()
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(polished(text), encoding="utf-8")


def polished(text):
    """One page."""
    for pattern in LEFT_OUT if FORMULA.search(text) else (*LEFT_OUT, MATHJAX):
        text = pattern.sub("", text)
    return text.replace('role="doc-biblioentry"', 'role="listitem"')


def with_fonts(sheet):
    """The style sheet with its fonts inside, without those that stand for older versions."""
    fonts = sheet.parent.parent / "webfonts"

    def face(rule):
        return FONT.sub(lambda match: data_url(fonts / match[1]), rule[0]) if "Awesome\\ 6" in rule[0] else ""

    return FACE.sub(face, sheet.read_text(encoding="utf-8"))


def data_url(font):
    """An address that holds the font itself."""
    return f"url(data:font/woff2;base64,{base64.b64encode(font.read_bytes()).decode()})"
