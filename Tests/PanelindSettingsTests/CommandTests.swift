//  CommandTests.swift
//  The command against its mode, PORT and the machine: contradictions, exit codes, advice.
//  Read after RefusalTests.swift.

import PanelindCore
import Testing

@testable import PanelindSettings

@Suite("commands") struct CommandTests {
    @Test(
        "a contradiction of mode and command says what would be right",
        arguments: [
            (
                ["uvicorn", "{socket}", "{port}"], [],
                "cannot use worker.command=[uvicorn, {socket}, {port}]: {port} and {socket} together; "
                    + "keep one: {socket} or {port} for front, {fd} for socket mode (--)"
            ),
            (
                ["uvicorn"], ["serve.mode=front"],
                "cannot use serve.mode=front: a front needs an address for the worker; "
                    + "write {socket} or {port} in worker.command, or serve.upstream (--set serve.mode)"
            ),
            (
                ["uvicorn", "{port}"], ["serve.mode=direct"],
                "cannot use serve.mode=direct: worker.command has {port}, which is front mode; remove one of them "
                    + "(--set serve.mode)"
            ),
            (
                ["uvicorn", "{fd}"], ["serve.mode=front"],
                "cannot use serve.mode=front: worker.command has {fd}, which is socket mode; "
                    + "write {socket} or {port} instead (--set serve.mode)"
            ),
            (
                ["uvicorn", "{socket}"], ["serve.mode=socket"],
                "cannot use serve.mode=socket: worker.command has {socket}, which is front mode; "
                    + "write {fd} instead, or none (--set serve.mode)"
            ),
            (
                ["uvicorn"], ["serve.mode=direct", "serve.upstream=127.0.0.1:1"],
                "cannot use serve.mode=direct: serve.upstream means front mode; remove one of them (--set serve.mode)"
            ),
            (
                ["uvicorn", "{fd}"], ["serve.upstream=127.0.0.1:1"],
                "cannot use serve.upstream=127.0.0.1:1: worker.command has {fd}, "
                    + "which says where the worker serves; remove one (--set serve.upstream)"
            ),
            (
                ["uvicorn", "{socket}", "${PORT}"], [],
                "cannot use worker.command=[uvicorn, {socket}, ${PORT}]: in ${PORT}, "
                    + "PORT is not set for the worker in front mode; write {port} (--)"
            ),
            (
                ["uvicorn", "${NOPE}"], [],
                "cannot use worker.command=[uvicorn, ${NOPE}]: in ${NOPE}, "
                    + "NOPE is not set; set it, or write ${NOPE:-default} (--)"
            ),
            (
                ["uvicorn", "--key=${K}"], ["worker.secrets={K: /secrets/key}"],
                "cannot use worker.command=[uvicorn, --key=${K}]: in --key=${K}, "
                    + "K is one of worker.secrets, and every process can read a command line; "
                    + "let the worker read it from its environment (--)"
            ),
            (
                [], [],
                "cannot start a worker: worker.command is not set; "
                    + "write it in panelind.yaml, or after --: panelind run -- COMMAND ARG"
            ),
            (
                ["uvicorn"], ["worker.command=[a]"],
                "cannot use worker.command=[a]: given after -- too; keep one (--set worker.command)"
            ),
        ] as [([String], [String], String)])
    func contradictions(command: [String], overrides: [String], message: String) {
        let surroundings = Surroundings(environment: ["PATH": "/usr/bin"], workingDirectory: "/app")
        let request = SettingsRequest(overrides: overrides, command: command)
        #expect(loadSettings(request, surroundings, FakeWorld().world).messages == [message])
    }

    @Test("a sign that joins itself to a brace hides neither a variable nor a placeholder")
    func joinedSigns() throws {
        let command = ["uvicorn", "{port}\u{301}", "${A}\u{200D}", "$$\u{301}", "${NONE:-x}\u{301}\r\n"]
        let settings = try load(command: command, environment: ["A": "a"]).good()
        let filled = settings.worker.command.map { Array($0.filled(socket: "/s", port: 9, descriptor: 3).utf8) }
        #expect(filled == ["uvicorn", "9\u{301}", "a\u{200D}", "$\u{301}", "x\u{301}\r\n"].map { Array($0.utf8) })
    }

    @Test(
        "a PORT that is no port is refused by its name",
        arguments: [
            ("0", "cannot use serve.listen=0.0.0.0:0: PORT: 0 is not a port; write one from 1 to 65535"),
            ("70000", "cannot use serve.listen=0.0.0.0:70000: PORT: 70000 is not a port; write one from 1 to 65535"),
            ("http", "cannot use serve.listen=0.0.0.0:http: PORT: http is not a port; write one from 1 to 65535"),
        ])
    func port(text: String, message: String) {
        #expect(load(command: frontCommand, environment: ["PORT": text]).messages == [message])
        let direct = load(command: ["uvicorn"], environment: ["PORT": text]).messages
        #expect(direct.count == 1 && direct.allSatisfy { $0.hasPrefix("cannot use PORT=\(text): ") })
    }

    @Test(
        "a command that cannot run has exit codes of its own",
        arguments: [
            (["nothing"], 127, "no command nothing in PATH; install it, or write its path"),
            (["/app/none"], 127, "no file /app/none; write the path of a program"),
            (["/bin/orphan"], 127, "/bin/orphan wants the interpreter /opt/none, which does not exist"),
            (["/srv"], 126, "/srv is a directory; write the path of a program"),
            (["./plain"], 126, "./plain is not executable; chmod +x it, or run it by its interpreter"),
            (["text"], 126, "/bin/text is text without a #! line; add one, or run it by its interpreter"),
        ] as [([String], Int32, String)])
    func commands(command: [String], code: Int32, why: String) {
        let report = load(command: command)
        #expect(report.messages == ["cannot use worker.command=[\(command[0])]: \(why) (--)"])
        #expect(report.runExitCode == code)
        // Beside any other error it is a matter of configuration.
        #expect(load("stop.budget=5", command: command).runExitCode == 78)
    }

    @Test(
        "what is probably not meant is advised against",
        arguments: [
            (
                ["sh", "-c", "uvicorn api:app"], [],
                "worker.command: sh -c without exec keeps a shell between panelind and the worker; "
                    + "write the command itself, or exec before it"
            ),
            (["/bin/sh", "-c", "cd /app && exec uvicorn api:app"], [], nil),
            (
                ["/bin/sh", "-ec", "exec a; b"], [],
                "worker.command: /bin/sh -c without exec keeps a shell between panelind and the worker; "
                    + "write the command itself, or exec before it"
            ),
            (["/bin/sh", "script.sh"], [], nil),
            (
                ["uvicorn", "--reload"], [],
                "worker.command: --reload restarts the worker behind panelind's back; remove it under a supervisor"
            ),
            (
                ["uvicorn"], ["platform=cloudrun"],
                "serve.mode: direct mode on cloudrun refuses requests while the worker is away; "
                    + "use {socket} or {port} in worker.command"
            ),
            (
                ["uvicorn", "--fd", "{fd}"], ["platform=cloudrun"],
                "serve.mode: in socket mode on cloudrun /health and /ready are only on the sidecar, not on $PORT, and a "
                    + "TCP startup probe passes without a worker; use {socket}, or HTTP probes on the sidecar's port"
            ),
            (["uvicorn", "--fd", "{fd}"], ["platform=kubernetes"], nil),
            (
                ["uvicorn", "{socket}"], ["platform=cloudrun", "stop.budget=20s"],
                "stop.budget: 20s is beyond the 10s after which cloudrun kills; write less than 10s"
            ),
            (
                ["uvicorn", "{socket}"], ["platform=kubernetes", "stop.budget=60s"],
                "stop.budget: 60s is beyond the 30s after which kubernetes kills by default; "
                    + "raise terminationGracePeriodSeconds too"
            ),
            (["uvicorn", "{socket}"], ["platform=kubernetes"], nil),
            (
                ["uvicorn", "{socket}"], ["worker.environment={API_KEY: abc}"],
                "worker.environment: API_KEY looks like a secret; give its file in worker.secrets"
            ),
        ] as [([String], [String], String?)])
    func advice(command: [String], overrides: [String], advice: String?) {
        let surroundings = Surroundings(environment: ["PATH": "/usr/bin:/bin"], workingDirectory: "/app")
        let request = SettingsRequest(overrides: overrides, command: command)
        let report = loadSettings(request, surroundings, FakeWorld().world)
        #expect(report.messages == [])
        #expect(report.advice == (advice.map { [$0] } ?? []))
    }
}
