//  RefusalTests.swift
//  Bad settings and the exact message each gets; all errors at once; what is advised and warned of.
//  Read after LoaderTests.swift.

import PanelindCore
import Testing

@testable import PanelindSettings

@Suite("refusals") struct RefusalTests {
    @Test(
        "a bad value names key, value, place and what would be right",
        arguments: [
            ("stop.budget=5", "cannot use stop.budget=5: a number without a unit; write 5s (--set stop.budget)"),
            (
                "stop.buget=9s",
                "cannot use stop.buget=9s: unknown key; did you mean stop.budget? (--set stop.buget)"
            ),
            (
                "serve.budget=9s",
                "cannot use serve.budget=9s: unknown key; did you mean stop.budget? (--set serve.budget)"
            ),
            (
                "worker.environment.API_KEY=abc",
                "cannot use worker.environment.API_KEY: worker.environment is given whole; "
                    + "write worker.environment={LOG_LEVEL: info} (--set worker.environment.API_KEY)"
            ),
            (
                "restart.jitter=2",
                "cannot use restart.jitter=2: out of range; write a number from 0 to 1 (--set restart.jitter)"
            ),
            (
                "restart.factor=0.5",
                "cannot use restart.factor=0.5: out of range; write a number from 1 to 100 (--set restart.factor)"
            ),
            (
                "restart.policy=allways",
                "cannot use restart.policy=allways: write always, on-failure or never; did you mean always? "
                    + "(--set restart.policy)"
            ),
            (
                "restart.successCodes=[0, 256]",
                "cannot use restart.successCodes=[0, 256]: 256: out of range; write a number from 0 to 255 "
                    + "(--set restart.successCodes)"
            ),
            (
                "restart.delay=1m",
                "cannot use restart.delay=1m: restart.delay 60s is more than restart.maxDelay 30s; "
                    + "write a smaller delay or a larger maxDelay (--set restart.delay)"
            ),
            (
                "serve.bodyLimit=5MB",
                "cannot use serve.bodyLimit=5MB: unknown unit MB; write a size such as 64KiB, 32MiB or 1GiB, or none "
                    + "(--set serve.bodyLimit)"
            ),
            (
                "stop.signal=TERMINATE",
                "cannot use stop.signal=TERMINATE: TERMINATE is no signal of Linux; "
                    + "write a name such as TERM, INT or QUIT (--set stop.signal)"
            ),
            (
                "stop.signal=[TERM, INT]",
                "cannot use stop.signal=[TERM, INT]: TERM is not the last: write {TERM: 5s} (--set stop.signal)"
            ),
            (
                "stop.signal=[{TERM: 8s}, INT]",
                "cannot use stop.signal=[{TERM: 8s}, INT]: the waits before the last signal, 8s, leave it nothing of "
                    + "stop.grace 2.5s; write shorter ones (--set stop.signal)"
            ),
            (
                "stop.drain=9s",
                "cannot use stop.drain=9s: delay 0s + drain 9s + 500ms leave no grace within the budget of 9s; "
                    + "lower it, or raise stop.budget (--set stop.drain)"
            ),
            (
                "stop.budget=500ms",
                "cannot use stop.budget=500ms: delay 0s + drain 0s + 500ms leave no grace within the budget of 500ms; "
                    + "write more than 500ms (--set stop.budget)"
            ),
            (
                "serve.readyPath=ready",
                "cannot use serve.readyPath=ready: does not begin with /; write a path such as /ready, or none "
                    + "(--set serve.readyPath)"
            ),
            (
                "serve.readyPath=/health",
                "cannot use serve.readyPath=/health: serve.healthPath and serve.readyPath are both /health; "
                    + "write two paths, or none (--set serve.readyPath)"
            ),
            (
                "serve.listen=0.0.0.0",
                "cannot use serve.listen=0.0.0.0: no port; write HOST:PORT, [::]:PORT, unix:PATH or systemd "
                    + "(--set serve.listen)"
            ),
            (
                "serve.listen=nowhere.invalid:80",
                "cannot use serve.listen=nowhere.invalid:80: no host nowhere.invalid is known; write an address "
                    + "(--set serve.listen)"
            ),
            (
                "serve.listen=systemd",
                "cannot use serve.listen=systemd: no socket was inherited (LISTEN_FDS); "
                    + "start panelind from its socket unit (--set serve.listen)"
            ),
            (
                "sidecar.listen=0.0.0.0:8080",
                "cannot use sidecar.listen=0.0.0.0:8080: port 8080 is that of the front or the worker; "
                    + "write another, or none (--set sidecar.listen)"
            ),
            (
                "worker.directory=/none",
                "cannot use worker.directory=/none: no such directory; create it, or write another "
                    + "(--set worker.directory)"
            ),
            (
                "worker.user=nobody-here",
                "cannot use worker.user=nobody-here: no such user; create it, or write a number (--set worker.user)"
            ),
            (
                "worker.user=4321",
                "cannot use worker.user=4321: no entry in the user database for this number; give worker.group too "
                    + "(--set worker.user)"
            ),
            (
                "worker.requiredEnvironment=[API_KEY]",
                "cannot use worker.requiredEnvironment=[API_KEY]: API_KEY is not set; "
                    + "set it, or give it in worker.secrets (--set worker.requiredEnvironment)"
            ),
            (
                "worker.requiredEnvironment=API_KEY",
                "cannot use worker.requiredEnvironment=API_KEY: not a list; write [API_KEY, DATABASE_URL] "
                    + "(--set worker.requiredEnvironment)"
            ),
            (
                "worker.secrets={K: /secrets/none}",
                "cannot use worker.secrets={K: /secrets/none}: K: cannot read /secrets/none: no such file; "
                    + "mount it there, or write another path (--set worker.secrets)"
            ),
            (
                "worker.secrets={K: /secrets/empty}",
                "cannot use worker.secrets={K: /secrets/empty}: K: cannot read /secrets/empty: empty; "
                    + "write the value into it (--set worker.secrets)"
            ),
            (
                "worker.secrets={K: /secrets}",
                "cannot use worker.secrets={K: /secrets}: K: cannot read /secrets: a directory; "
                    + "write the path of the file in it (--set worker.secrets)"
            ),
            (
                "log.project=${UNSET_NAME}",
                "cannot use log.project=${UNSET_NAME}: UNSET_NAME is not set; set it, or write ${UNSET_NAME:-default} "
                    + "(--set log.project)"
            ),
            (
                "log.buffer=64KiB",
                nil
            ),
            ("nonsense", "cannot use --set nonsense: no value; write --set KEY=VALUE"),
            (
                "stop=9s",
                "cannot use stop=9s: holds other keys; write stop.signal, stop.target, stop.budget … (--set stop)"
            ),
            (
                "serve.trustedProxies=[loopback, ten]",
                "cannot use serve.trustedProxies=[loopback, ten]: ten is no address or block; "
                    + "write loopback, unix, all or 10.0.0.0/8 (--set serve.trustedProxies)"
            ),
            (
                "worker.limits={openFiles: many}",
                "cannot use worker.limits.openFiles=many: not a whole number; "
                    + "write a number from 0 to 1073741824, or unlimited (--set worker.limits)"
            ),
        ] as [(String, String?)])
    func badValue(override: String, message: String?) {
        let report = load(override, command: frontCommand)
        #expect(report.messages == (message.map { [$0] } ?? []))
        #expect(report.runExitCode == (message == nil ? 0 : 78))
    }

    @Test(
        "a probe that cannot work is refused",
        arguments: [
            (
                "probe.liveness={notify: true}",
                "cannot use probe.liveness.notify=true: the worker tells this once, so it cannot show that it lives; "
                    + "write http, tcp or exec (--set probe.liveness)"
            ),
            (
                "probe.readiness={log: up}",
                "cannot use probe.readiness.log=up: a line of output tells of the start only; "
                    + "write it as probe.startup.log (--set probe.readiness)"
            ),
            (
                "probe.startup={log: '('}",
                "cannot use probe.startup.log=(: not a POSIX extended expression: Unmatched ( or \\(; "
                    + "write one such as \"listening on\" (--set probe.startup)"
            ),
            (
                "probe.readiness={http: /a, tcp: true}",
                "cannot use probe.readiness.http=/a: probe.readiness has http and tcp together; keep one "
                    + "(--set probe.readiness)"
            ),
            (
                "probe.readiness.period=5s",
                "cannot use probe.readiness.period=5s: probe.readiness has no method; "
                    + "write one of http, tcp, exec, notify, log, fd beside it (--set probe.readiness.period)"
            ),
            (
                "probe.readiness={http: /a, failures: 0}",
                "cannot use probe.readiness.failures=0: out of range; write a number from 1 to 1000 "
                    + "(--set probe.readiness)"
            ),
            (
                "probe.readiness={http: /a, timeout: 0s}",
                "cannot use probe.readiness.timeout=0s: must be more than 0s (--set probe.readiness)"
            ),
            (
                "probe.readiness.http=https://x/",
                "cannot use probe.readiness.http=https://x/: probes do not speak TLS; "
                    + "write a path such as /ready, or http://HOST:PORT/PATH (--set probe.readiness.http)"
            ),
            (
                "probe.readiness.tcp=here",
                "cannot use probe.readiness.tcp=here: no port; write HOST:PORT, [::]:PORT, or true "
                    + "(--set probe.readiness.tcp)"
            ),
            (
                "probe.liveness.exec=[/app/none]",
                "cannot use probe.liveness.exec=[/app/none]: no file /app/none; write the path of a program "
                    + "(--set probe.liveness.exec)"
            ),
            (
                "probe.readiness=/ready",
                "cannot use probe.readiness=/ready: holds other keys; "
                    + "write probe.readiness.http, probe.readiness.tcp, probe.readiness.exec … (--set probe.readiness)"
            ),
            ("probe.readiness.http=http://127.0.0.1:80/x", nil), ("probe.readiness.http=http://[::1]/", nil),
            ("probe.readiness.tcp=127.0.0.1:80", nil), ("probe.liveness.exec=[/app/check, x]", nil),
            ("probe.startup={log: '^up$', deadline: 5s}", nil), ("probe.readiness.fd=4", nil),
        ] as [(String, String?)])
    func probes(override: String, message: String?) {
        #expect(load(override, command: frontCommand).messages == (message.map { [$0] } ?? []))
    }

    @Test("in direct mode a path needs PORT, and inherit leaves no log to search")
    func probeSurroundings() {
        #expect(
            load("probe.readiness.http=/x", command: ["uvicorn"]).messages == [
                "cannot use probe.readiness.http=/x: in direct mode a path needs PORT, which is not set; "
                    + "write http://HOST:PORT/x (--set probe.readiness.http)"
            ])
        #expect(load("probe.readiness.http=/x", command: ["uvicorn"], environment: ["PORT": "80"]).problems.isEmpty)
        #expect(
            load("probe.startup.log=up", "log.format=inherit", command: frontCommand).messages == [
                "cannot use probe.startup.log=up: log.format inherit leaves the output unread; "
                    + "write another log.format or probe (--set probe.startup.log)"
            ])
    }

    @Test("all errors are found at once, each with its line")
    func allErrors() {
        let file = """
            worker:
              command: [uvicorn, "{socket}"]
              directory: /none
            stop:
              budget: 5
            serve:
              hold: 10
              lisen: x
              trustedProxies:
                - loopback
                - ten
            restart:
              jitter: 7
            """
        #expect(
            load(file: file).messages == [
                "cannot use serve.lisen=x: unknown key; did you mean serve.listen? (panelind.yaml:8)",
                "cannot use worker.directory=/none: no such directory; create it, or write another (panelind.yaml:3)",
                "cannot use serve.hold=10: a number without a unit; write 10s (panelind.yaml:7)",
                "cannot use serve.trustedProxies=[loopback, ten]: ten is no address or block; "
                    + "write loopback, unix, all or 10.0.0.0/8 (panelind.yaml:11)",
                "cannot use restart.jitter=7: out of range; write a number from 0 to 1 (panelind.yaml:13)",
                "cannot use stop.budget=5: a number without a unit; write 5s (panelind.yaml:5)",
            ])
    }

    @Test("a file that is no YAML says where")
    func syntax() {
        let report = load(file: "stop:\n  budget: 9s\n  budget: 8s\n", command: frontCommand)
        #expect(report.messages == ["cannot read panelind.yaml:3:3: duplicate key budget, first at line 2; keep one"])
        let nested = load(file: "stop.budget: 9s\nstop:\n  budget: 8s\n", command: frontCommand)
        #expect(nested.messages == ["cannot use stop.budget=8s: given twice; keep one (panelind.yaml:3)"])
        let list = load(file: "- a\n", command: frontCommand)
        #expect(list.messages == ["cannot read panelind.yaml:1: not a map; write KEY: VALUE lines"])
    }

    @Test("given values that exceed the budget are refused with their sum")
    func budget() {
        let file = "stop:\n  budget: 10s\n  delay: 1s\n  grace: 3s\n  drain: 9s\n"
        #expect(
            load(file: file, command: frontCommand).messages == [
                "cannot use stop.drain=9s: delay 1s + drain 9s + grace 3s + 500ms exceed the budget of 10s; "
                    + "lower it, or raise stop.budget (panelind.yaml:5)"
            ])
        // Exactly the budget fits.
        #expect(load("stop.budget=10s", "stop.drain=6500ms", "stop.grace=3s", command: frontCommand).problems.isEmpty)
    }

    @Test("an unknown variable is one warning, and the worker's own are silent")
    func unknownVariables() {
        let report = load(
            command: frontCommand,
            environment: [
                "PANELIND_STOP_BUGET": "secret", "PANELIND_SOCKET": "x", "PANELIND_GENERATION": "y",
                "PANELIND_STOP_SECONDS": "3",
            ])
        #expect(report.problems.isEmpty)
        #expect(
            report.warnings == [
                "unknown variable PANELIND_STOP_BUGET in the environment is ignored; did you mean PANELIND_STOP_BUDGET?"
            ])
    }

    @Test("an address that cannot be bound is refused where ports are tried: 71")
    func binding() {
        let world = FakeWorld(taken: [.tcp(host: "0.0.0.0", port: 8080), .tcp(host: "127.0.0.1", port: 8081)])
        #expect(load(command: frontCommand, in: world).problems.isEmpty)
        let report = load(command: frontCommand, in: world, bindsPorts: true)
        #expect(
            report.messages == [
                "cannot use serve.listen=0.0.0.0:8080: it cannot be bound: Address already in use; write a free port"
            ])
        #expect(report.runExitCode == 71)
    }

    @Test("who may not become another user is refused, and who is that user already is not")
    func unprivileged() throws {
        let report = load("worker.user=app", command: frontCommand, in: FakeWorld(userID: 500))
        #expect(
            report.messages == [
                "cannot use worker.user=app: panelind runs as user 500 and may not become another; start it as root "
                    + "(CAP_SETUID, CAP_SETGID), or remove it (--set worker.user)"
            ])
        let already = try load("worker.user=app", command: frontCommand, in: FakeWorld(userID: 1000)).good()
        #expect(already.worker.identity.isUnchanged)
        #expect(already.worker.identity.userName == "app")
    }

    @Test("a limit of descriptors under which no program starts is refused")
    func tooFewDescriptors() {
        #expect(load("worker.limits.openFiles=3", command: frontCommand).messages.count == 1)
        #expect(load("worker.limits.openFiles=4", command: frontCommand).messages.isEmpty)
    }
}
