# wsgi.py
# The WSGI application that real servers serve in tests: the same paths as fa.py.
# Read README.md before it.
"""WSGI: / and /health answer 200, /ready by the file named in READY_FILE, /slow?seconds=N, /pid."""

import json
import os
import time
from urllib.parse import parse_qs


def app(environ, start_response):
    path, query = environ.get("PATH_INFO", "/"), parse_qs(environ.get("QUERY_STRING", ""))
    status, body = "200 OK", {"pid": os.getpid()}
    if path == "/slow":
        time.sleep(float(query.get("seconds", ["1"])[0]))
        body["slept"] = True
    elif path == "/ready":
        file = os.environ.get("READY_FILE")
        if file and not os.path.exists(file):
            status = "503 Service Unavailable"
    elif path not in ("/", "/health", "/pid"):
        status = "404 Not Found"
    data = json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]
