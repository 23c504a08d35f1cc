#!/usr/bin/env python3
# load.py
# Clients that ask one address without a pause until they are told to end, and count what went wrong: a refused or
# broken connection, an answer other than 200. One connection a request, or kept open.
#
# STOP-FILE.begun appears with the first answer.
#   load.py HOST:PORT PATH STOP-FILE RESULT-FILE [CLIENTS]     writes {"requests": N, "failed": [...], "slowest": seconds}
import http.client
import json
import pathlib
import sys
import threading
import time


def client(number, address, path, stop, results, lock):
    kept = number % 2 == 0
    connection = None
    while not stop.exists():
        begin = time.monotonic()
        fresh = connection is None
        try:
            if fresh:
                connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("GET", path, headers={} if kept else {"Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            failure = None if answer.status == 200 else f"status {answer.status}"
            closed = answer.will_close or not kept
        except (OSError, http.client.HTTPException) as error:
            failure, closed = f"{type(error).__name__}: {error}", True
            # RFC 9112 9.3.1: a server may close an idle connection at any time; a GET on one is sent again.
            if not fresh and isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
                connection.close()
                connection = None
                continue
        if closed:
            connection.close()
            connection = None
        with lock:
            if not results["requests"]:
                pathlib.Path(f"{stop}.begun").touch()
            results["requests"] += 1
            results["slowest"] = max(results["slowest"], time.monotonic() - begin)
            if failure:
                results["failed"].append(failure)
        if failure:
            # A refused connection comes back at once: do not spin on it.
            time.sleep(0.05)


def main():
    address, path, stop, result = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
    clients = int(sys.argv[5]) if len(sys.argv) > 5 else 6
    results, lock = {"requests": 0, "failed": [], "slowest": 0.0}, threading.Lock()
    threads = [
        threading.Thread(target=client, args=(n, address, path, stop, results, lock), daemon=True) for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    results["unfinished"] = sum(thread.is_alive() for thread in threads)
    temporary = result.with_suffix(".new")
    temporary.write_text(json.dumps(results))
    temporary.rename(result)


main()
