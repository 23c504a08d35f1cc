# front.py
# A panelind in front mode with a scripted upstream behind it: what most tests of the front start from.
# Read director.py and rawclient.py first.

import json
import os
import signal

from .director import Director
from .network import free_port
from .rawclient import Client, exchange, request


class Front:
    """Both, and the address where clients ask."""

    def __init__(self, daemon, director, target):
        self.daemon, self.director, self.target = daemon, director, target

    def client(self, **options):
        return Client(self.target, **options)

    def get(self, path="/", *lines, **options):
        """GET on a connection of its own."""
        return exchange(self.target, request(path, None, "Connection: close", *lines), **options)

    def post(self, path, body=b"x", *lines, **options):
        return exchange(self.target, request(path, body, "Connection: close", *lines), **options)

    def seen(self, path="/", *lines, **options):
        """What the worker was asked, after a GET that it answers with that."""
        answer = self.get(path, *lines, **options)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def health(self, path="/health"):
        """Asks panelind itself: (status, body)."""
        answer = self.get(path)
        return answer.status, json.loads(answer.body)

    def state(self):
        return self.health()[1]["state"]

    def serves(self):
        """The next request is served, whatever came before; and the worker never saw what is no HTTP."""
        answer = self.get("/still-there")
        assert answer.status == 200 and answer.body, answer
        self.director.nothing_bad()
        return True

    def kill_worker(self, generation=None):
        events = self.daemon.events("worker_started")
        generation = generation or events[-1]["generation"]
        os.kill(self.daemon.worker(generation), signal.SIGKILL)
        return generation


class Fronts:
    """Starts fronts; the fixture `front` is one of these."""

    def __init__(self, panelind):
        self.panelind = panelind
        self.directors = []

    def __call__(self, rules=None, settings=None, *, boot=None, term=None, placeholder="{socket}", listen=None,
                 ready=True, command=None, **options):
        """A front and its upstream.

        rules, boot, term: the upstream's script. placeholder: "{socket}", "{port}", or an address for serve.upstream.
        listen: serve.listen; else a free port of loopback. ready: wait for the worker. settings: as for `panelind`.
        """
        director = Director()
        self.directors.append(director)
        more = {key: value for key, value in {"boot": boot, "term": term}.items() if value is not None}
        director.write(rules or {}, **more)
        own = {"restart.delay": "20ms", "restart.maxDelay": "20ms"}
        target = None
        if listen is None:
            target = free_port()
            own["serve.listen"] = f"127.0.0.1:{target}"
        elif listen:
            own["serve.listen"] = listen
            target = listen.removeprefix("unix:") if listen.startswith("unix:") else int(listen.rpartition(":")[2])
        if command is None:
            if "{socket}" in placeholder:
                command = director.command("--uds", placeholder)
            elif placeholder == "{port}":
                command = director.command("--port", "{port}")
            else:
                own["serve.upstream"] = placeholder
                if placeholder.startswith("unix:"):
                    command = director.command("--uds", placeholder.removeprefix("unix:"))
                else:
                    command = director.command("--port", placeholder.rpartition(":")[2])
        daemon = self.panelind(command=command, settings={**own, **(settings or {})}, **options)
        front = Front(daemon, director, target)
        if ready:
            daemon.ready()
        return front

    def close(self):
        for director in self.directors:
            director.close()
