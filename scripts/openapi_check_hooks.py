"""What schemathesis cannot read in the document; see openapi-check.sh."""

import re
import unicodedata

import schemathesis

LARGEST = 2**53 - 1


@schemathesis.hook
def before_call(context, case, kwargs):
    """A poll that does not say how long it waits would wait for 25 s."""
    if case.path == "/v1/sync":
        asked = case.query if case.method.upper() == "GET" else case.body
        if isinstance(asked, dict) and "wait_ms" not in asked:
            asked["wait_ms"] = 0


@schemathesis.hook
def filter_body(context, body):
    """Rules of docs/protocol.md that no schema says."""
    if not isinstance(body, dict):
        return True
    message = body.get("body")
    text = message.get("text") if isinstance(message, dict) else None
    emoji = message.get("emoji") if isinstance(message, dict) else None
    # Two fields that may not be equal: a message is not behind itself.
    behind_itself = "cid" in body and body.get("behind") == body["cid"]
    media = message.get("media") if isinstance(message, dict) else None
    url = media.get("url") if isinstance(media, dict) else None
    rules = resolvable(url) and named(body.get("name")) and composed(body.get("password")) and seen(text) and one_emoji(emoji)
    return fits(body) and rules and not behind_itself


def fits(value):
    """Fields that nobody knows have no integers of 2^53 or more."""
    if isinstance(value, dict):
        return all(fits(v) for v in value.values())
    if isinstance(value, list):
        return all(fits(v) for v in value)
    return isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) <= LARGEST


def named(name):
    """The letters of an account's name are of one script, and of those that Unicode recommends for identifiers (a table of UTS 39); in the name
    of a group what hides, joins or piles up depends on what stands beside it. ASCII and the letters of Latin-1 never do."""
    return not isinstance(name, str) or all(c.isascii() or "\u00c0" <= c <= "\u00ff" and c.isalpha() for c in name)


def composed(password):
    """Its length counts when it is composed, joiners count by their neighbours, and planes beyond the first have ignorable marks, too."""
    return not isinstance(password, str) or all(unicodedata.category(c)[0] in "LNPSZ" for c in password) and unicodedata.is_normalized("NFC", password)


def seen(text):
    """Something that has a shape by the tables of both sides."""
    return not isinstance(text, str) or any(unicodedata.category(c)[0] in "LNPS" and c < "\U00010000" for c in text)


def one_emoji(emoji):
    """One grapheme of UTS 51, whose bases are a table. That of the document is one; others are tried by the conformance suite."""
    return not isinstance(emoji, str) or emoji == "👍"


def resolvable(url):
    """A host name; that numbers are an IP address, xn-- is Punycode, and a port is below 65,536 no pattern says."""
    return not isinstance(url, str) or re.match(r"https?://([a-z0-9_~-]+\.)*[a-z][a-z0-9_~]*(:[0-9]{0,4})?([/?#]|$)", url, re.IGNORECASE)
