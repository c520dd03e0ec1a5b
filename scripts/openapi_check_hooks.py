"""What schemathesis cannot read in the document; see openapi-check.sh."""

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
    """Rules of docs/protocol.md that no schema says: fields that nobody knows have no integers of 2^53 or more; the letters of a name are of one
    script; what a name, a password or a text is made of can be seen."""
    if not isinstance(body, dict):
        return True
    message = body.get("body")
    text = message.get("text") if isinstance(message, dict) else None
    lines = [body.get("name"), body.get("password")]
    plain = all(line.isascii() and line.isprintable() for line in lines if isinstance(line, str))
    return fits(body) and plain and (not isinstance(text, str) or any(c.isalnum() for c in text))


def fits(value):
    if isinstance(value, dict):
        return all(fits(v) for v in value.values())
    if isinstance(value, list):
        return all(fits(v) for v in value)
    return isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) <= LARGEST
