"""Find what a page would fetch from a network when it is opened."""

from html.parser import HTMLParser

# Attributes a browser follows by itself; a link to click (`a`) is not one.
FETCHED = {"src", "srcset", "poster", "data"}
FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


class Fetches(HTMLParser):
    """Collects the remote addresses that one page loads."""

    def __init__(self):
        super().__init__()
        self.remote = []

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        followed = [attributes[name] for name in FETCHED & attributes.keys()]
        if tag == "link" and FETCHED_LINKS & set(attributes.get("rel", "").split()):
            followed.append(attributes.get("href", ""))
        self.remote += [value for value in followed if value.startswith(("http:", "https:", "//"))]


def remote_addresses(folder):
    """Page and address of everything remote that the pages under `folder` load by themselves."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        parser = Fetches()
        parser.feed(page.read_text(encoding="utf-8"))
        found += [(page.relative_to(folder).as_posix(), address) for address in parser.remote]
    return found
