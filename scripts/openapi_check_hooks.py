"""What schemathesis cannot read in the document; see openapi-check.sh."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """A poll that does not say how long it waits would wait for 25 s."""
    if case.path == "/v1/sync":
        asked = case.query if case.method.upper() == "GET" else case.body
        if isinstance(asked, dict) and "wait_ms" not in asked:
            asked["wait_ms"] = 0
