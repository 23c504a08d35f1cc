"""app.py: one answer of a KiB as ASGI (`app`) and as WSGI (`wsgi`), for the servers whose own reload is measured.

With a file named `broken` in the working directory it fails at import.  Read reloads.py before.
"""
import os

if os.path.exists("broken"):
    raise RuntimeError("broken, as asked")

BODY = b"x" * 1023 + b"\n"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1024")]})
    await send({"type": "http.response.body", "body": BODY})


def wsgi(environ, start_response):
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Length", "1024")])
    return [BODY]
