"""Links to views of Headlight, from Python: one file, the standard library alone, Python 3.8 and later.

    from headlight_link import url_of, state_of
    url = url_of("https://example.org/headlight/", {"prompt": "The cat", "head": "L1H0"})
    state = state_of(url)

A state is what headlight.state() gives: JSON without what is at its default (see State in headlight.d.ts). Nothing is
checked here; the page refuses what is no view. From a shell: `python3 headlight_link.py PAGE < state.json` prints a link,
`python3 headlight_link.py --read LINK` prints a state.
"""

import base64
import json
import sys
import zlib
from urllib.parse import urlencode

VERSION = "1"
MAX_LETTERS = 1 << 17
MAX_BYTES = 1 << 20


def fragment_of(state):
    """The state as it stands behind #; empty for a state that is all defaults."""
    if not state:
        return ""
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(text.encode("utf-8")) + deflate.flush()
    return VERSION + "." + base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def url_of(page, state, flags=None):
    """A link to the page with this state; flags such as {"embed": 1, "map": 0} make it the address of a frame."""
    query = "?" + urlencode(flags) if flags else ""
    fragment = fragment_of(state)
    return page + query + ("#" + fragment if fragment else "")


def state_of(link):
    """The state of a link, or of what stands behind its #."""
    _, _, fragment = link.rpartition("#") if "#" in link else ("", "", "" if "://" in link else link)
    if not fragment:
        return {}
    if len(fragment) > MAX_LETTERS:
        raise ValueError("this link is too long to be one of Headlight's")
    version, dot, packed = fragment.partition(".")
    if version != VERSION or not dot:
        raise ValueError("this link is of a version that is not known here")
    padded = packed + "=" * (-len(packed) % 4)
    inflate = zlib.decompressobj(-15)
    text = inflate.decompress(base64.urlsafe_b64decode(padded), MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError("this link unpacks to more than any view holds")
    return json.loads(text.decode("utf-8"))


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "--read":
        print(json.dumps(state_of(arguments[1]), ensure_ascii=False))
    elif len(arguments) == 1:
        print(url_of(arguments[0], json.load(sys.stdin)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
