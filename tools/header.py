"""A Sphinx extension: the buttons above a page lead to what a person wrote.

The theme knows only the executed notebook that it renders. Here its edit button opens the ``.md`` source,
and its download button offers a chapter as notebook, as MyST source and as script, which tools/site.py
puts beside each other.
"""

FORMATS = {
    ".ipynb": ("fas fa-code", "Notebook with its outputs"),
    ".md": ("fas fa-file", "MyST source"),
    ".py": ("fas fa-terminal", "Python script"),
}


def setup(app):
    """Come after the theme, whose buttons are of priority 501."""
    app.connect("html-page-context", change_buttons, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def change_buttons(app, pagename, templatename, context, doctree):
    """Point the buttons of a chapter at its source, and offer all its forms."""
    if context.get("page_source_suffix") != ".ipynb":
        return
    for button in every(context["header_buttons"]):
        if button.get("label") in ("source-edit-button", "source-file-button"):
            button["url"] = button["url"].replace(f"{pagename}.ipynb", f"{pagename}.md")
        elif button.get("label") == "download-buttons":
            printing = [b for b in button["buttons"] if b["label"] == "download-pdf-button"]
            button["buttons"] = [*downloads(context["pathto"]("_sources", 1), pagename), *printing]


def every(buttons):
    """Buttons and those in groups."""
    for button in buttons:
        yield button
        yield from every(button.get("buttons", []))


def downloads(folder, pagename):
    """A button for each form of a chapter."""
    for suffix, (icon, words) in FORMATS.items():
        yield {
            "type": "link",
            "url": f"{folder}/{pagename}{suffix}",
            "text": suffix,
            "tooltip": words,
            "icon": icon,
            "label": f"download-{suffix[1:]}-button",
        }
