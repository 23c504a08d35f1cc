//  LoaderTests.swift
//  Sources and their order, platforms, the stop budget: what settings come out of what was said.
//  Read after Equipment.swift; errors are in RefusalTests.swift.

import PanelindCore
import Testing

@testable import PanelindSettings

@Suite("loading") struct LoaderTests {
    @Test("flags win over environment over file over platform over default, each with its origin")
    func order() throws {
        let file = """
            worker:
              command: [uvicorn, "--uds", "{socket}", "api:app"]
            stop:
              budget: 20s
              delay: 2s
              grace: 3s
            """
        let report = load(
            file: file, "stop.grace=4s",
            environment: ["PANELIND_STOP_DELAY": "3s", "PANELIND_STOP_GRACE": "5s", "K_SERVICE": "x"])
        let settings = try report.good()
        #expect(settings.stop.budget == .seconds(20))
        #expect(settings.stop.delay == .seconds(3))
        #expect(settings.stop.grace == .seconds(4))
        #expect(report.line("stop.budget")?.origin == .file("panelind.yaml", line: 4))
        #expect(report.line("stop.delay")?.origin == .environment("PANELIND_STOP_DELAY"))
        #expect(report.line("stop.grace")?.origin == .flag("--set stop.grace"))
        #expect(report.line("restart.limit")?.origin == .platform)
        #expect(report.line("restart.limit")?.value == "8")
        #expect(report.line("restart.delay")?.origin == .default)
        #expect(report.line("worker.command")?.value == "[uvicorn, --uds, \"{socket}\", api:app]")
    }

    @Test("every setting can be said in the environment under its own name")
    func names() {
        #expect(variableName("worker.command") == "PANELIND_WORKER_COMMAND")
        #expect(variableName("restart.maxDelay") == "PANELIND_RESTART_MAX_DELAY")
        #expect(variableName("probe.startup.deadline") == "PANELIND_PROBE_STARTUP_DEADLINE")
        #expect(variableName("restart.permanentExitCodes") == "PANELIND_RESTART_PERMANENT_EXIT_CODES")
        #expect(Table.byVariable.count == Table.keys.count + Table.groups.count)
        #expect(Set(Table.keys).count == Table.keys.count)
    }

    @Test("lists and maps in the environment and in --set are YAML flow")
    func flow() throws {
        let settings = try load(
            "worker.environment={A: '1', B: \"${X}\"}", "restart.successCodes=[0, 143]",
            environment: [
                "PANELIND_WORKER_COMMAND": "[uvicorn, --port, {port}, api:app]", "X": "y",
                "PANELIND_PROBE_READINESS": "{http: /ok, period: 5s}", "PANELIND_PROBE_READINESS_FAILURES": "7",
            ]
        ).good()
        #expect(settings.worker.command.map(\.description) == ["uvicorn", "--port", "{port}", "api:app"])
        #expect(settings.worker.environment == [NamedText("A", "1"), NamedText("B", "y")])
        #expect(settings.restart.successCodes == [0, 143])
        #expect(settings.probe.readiness?.method == .http("/ok"))
        #expect(settings.probe.readiness?.period == .seconds(5))
        #expect(settings.probe.readiness?.failures == 7)
        #expect(settings.serve.mode == .front)
    }

    @Test(
        "the file may be empty, or say only comments under a key",
        arguments: ["", "# nothing\n", "stop:\n  # budget: 9s\n"])
    func emptyFile(file: String) throws {
        let report = load(file: file, command: frontCommand)
        _ = try report.good()
        #expect(report.file == "panelind.yaml")
    }

    @Test("a named file that is missing is an error, a searched one is not")
    func missingFile() {
        #expect(load(command: frontCommand).problems.isEmpty)
        let surroundings = Surroundings(environment: ["PATH": "/usr/bin"], workingDirectory: "/app")
        let request = SettingsRequest(configPath: "other.yaml", command: frontCommand)
        let report = loadSettings(request, surroundings, FakeWorld().world)
        #expect(report.messages == ["cannot read other.yaml: no such file; give the path of a file to --config"])
        #expect(report.runExitCode == 78)
    }

    @Test(
        "the platform shows by its evidence",
        arguments: [
            (["KUBERNETES_SERVICE_HOST": "h", "K_SERVICE": "s"], Platform.kubernetes),
            (["K_SERVICE": "s", "NOTIFY_SOCKET": "n"], .cloudrun), (["NOTIFY_SOCKET": "n"], .systemd), ([:], .local),
        ])
    func platforms(environment: [String: String], platform: Platform) throws {
        let report = load(command: frontCommand, environment: environment)
        #expect(try report.good().platform == platform)
        #expect(report.line("platform")?.origin == .default)
    }

    @Test("stdout on the journal is systemd, and its format")
    func journal() throws {
        let settings = try load(command: frontCommand) { $0.stdoutIsJournal = true }.good()
        #expect(settings.platform == .systemd)
        #expect(settings.log.format == .journal)
        #expect(try load(command: frontCommand) { $0.stdoutIsTerminal = true }.good().log.format == .text)
        #expect(try load(command: frontCommand).good().log.format == .json)
    }

    @Test(
        "each platform divides its own stop budget",
        arguments: [
            ("local", 9000, 0, 6000, 2500), ("cloudrun", 9000, 1000, 5333, 2167),
            ("kubernetes", 25000, 5000, 13333, 6167),
            ("systemd", 25000, 0, 16666, 7834),
        ])
    func budgets(platform: String, budget: Int, delay: Int, drain: Int, grace: Int) throws {
        let stop = try load("platform=\(platform)", command: frontCommand).good().stop
        #expect(stop.budget == .milliseconds(budget))
        #expect(stop.delay == .milliseconds(delay))
        #expect(stop.drain == .milliseconds(drain))
        #expect(stop.grace == .milliseconds(grace))
        #expect(!stop.graceIsSet)
        let direct = try load("platform=\(platform)", command: ["uvicorn"]).good().stop
        #expect(direct.drain == .zero)
        #expect(direct.grace == .milliseconds(budget - delay - 500))
    }

    @Test("a set grace takes from the drain, and only what it needs")
    func setGrace() throws {
        let less = try load("stop.grace=5s", command: frontCommand).good().stop
        #expect(less.drain == .milliseconds(3500))
        #expect(less.grace == .seconds(5))
        #expect(less.graceIsSet)
        let same = try load("stop.grace=1s", command: frontCommand).good().stop
        #expect(same.drain == .seconds(6))
        let small = try load("stop.budget=1s", command: frontCommand).good().stop
        #expect(small.drain + small.grace == .milliseconds(500))
        #expect(small.grace > .zero)
    }

    @Test("profiles set what the contract's table says")
    func profiles() throws {
        let cloudrun = try load("platform=cloudrun", command: frontCommand).good()
        #expect(cloudrun.restart.limit == 8)
        #expect(cloudrun.restart.permanentExitCodes == [3, 4, 126, 127])
        #expect(cloudrun.serve.trustedProxies == [.all])
        #expect(cloudrun.probe.startupDeadline == .seconds(240))
        #expect(cloudrun.sidecar.listen == .tcp(host: "127.0.0.1", port: 8081))
        let direct = try load("platform=cloudrun", command: ["uvicorn"], environment: ["PORT": "80"]).good()
        #expect(direct.sidecar.listen == .tcp(host: "0.0.0.0", port: 8081))
        let systemd = try load("platform=systemd", command: frontCommand).good()
        #expect(systemd.restart.permanentExitCodes == [126, 127])
        #expect(systemd.restart.limit == nil)
        #expect(systemd.serve.trustedProxies == [.loopback, .unix])
        let kubernetes = try load("platform=kubernetes", command: frontCommand).good()
        #expect(kubernetes.sidecar.listen == .tcp(host: "0.0.0.0", port: 8081))
        #expect(kubernetes.probe.startupDeadline == .seconds(60))
    }

    @Test(
        "the placeholder chooses the mode",
        arguments: [
            (["uvicorn", "--uds", "{socket}"], [], ServeMode.front), (["uvicorn", "--port={port}"], [], .front),
            (["uvicorn", "--fd", "{fd}"], [], .socket), (["uvicorn"], [], .direct),
            (["uvicorn"], ["serve.upstream=127.0.0.1:3000"], .front), (["uvicorn"], ["serve.mode=socket"], .socket),
            (["uvicorn", "{{port}}"], [], .direct),
        ] as [([String], [String], ServeMode)])
    func modes(command: [String], overrides: [String], mode: ServeMode) throws {
        let surroundings = Surroundings(environment: ["PATH": "/usr/bin"], workingDirectory: "/app")
        let request = SettingsRequest(overrides: overrides, command: command)
        #expect(try loadSettings(request, surroundings, FakeWorld().world).good().serve.mode == mode)
    }

    @Test("PORT chooses the address of the front, and the worker's in direct mode")
    func port() throws {
        let front = try load(command: frontCommand, environment: ["PORT": "5000"]).good()
        #expect(front.serve.listen == .tcp(host: "0.0.0.0", port: 5000))
        #expect(try load(command: frontCommand).good().serve.listen == .tcp(host: "0.0.0.0", port: 8080))
        let direct = try load(command: ["uvicorn", "${PORT}"], environment: ["PORT": "5000"]).good()
        #expect(direct.worker.command.last?.literal == "5000")
        #expect(direct.impliedReadiness == .ask(ProbeSettings(.tcp(""))))
        #expect(try load(command: ["uvicorn"]).good().impliedReadiness == .alive(.seconds(1)))
        let told = try load(command: ["uvicorn", "{port}", "${PORT}"], environment: ["PORT": "5000"]).good()
        #expect(told.worker.command.last?.pieces == [.port])
        let empty = try load(command: frontCommand, environment: ["PORT": ""]).good()
        #expect(empty.serve.listen == .tcp(host: "0.0.0.0", port: 8080))
        #expect(try load(command: ["uvicorn"], environment: ["PORT": ""]).good().serve.directPort == nil)
        let fallback = try load(command: ["uvicorn", "${PORT:-7000}"]).good()
        #expect(fallback.worker.command.last?.literal == "7000")
        let upstream = try load("serve.upstream=127.0.0.1:3000", command: ["uvicorn", "${PORT}"]).good()
        #expect(upstream.worker.command.last?.literal == "3000")
    }

    @Test("the command expands from the worker's environment, all else from panelind's own")
    func expansionSources() throws {
        let settings = try load(
            "worker.environment={WHERE: worker}", "log.project=${WHERE}", command: ["uvicorn", "${WHERE}"],
            environment: ["WHERE": "own"]
        ).good()
        #expect(settings.worker.command.last?.literal == "worker")
        #expect(settings.log.project == "own")
    }

    @Test("an inherited socket is where the front listens")
    func inherited() throws {
        let report = load(command: frontCommand) { $0.inheritedSockets = ["web"] }
        #expect(try report.good().serve.listen == .systemd(nil))
        #expect(report.line("serve.listen")?.origin == .platform)
        let named = load("serve.listen=systemd:web", command: frontCommand) { $0.inheritedSockets = ["web"] }
        #expect(try named.good().serve.listen == .systemd("web"))
        let listen = ["LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"]
        #expect(socketNames(listen, processID: 7) == ["a", "unknown"])
        #expect(socketNames(["LISTEN_PID": "8", "LISTEN_FDS": "2"], processID: 7).isEmpty)
    }

    @Test("the control socket is looked for in the contract's order")
    func control() throws {
        let environment = ["RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/1", "TMPDIR": "/tmp/x"]
        let surroundings = Surroundings(environment: environment, workingDirectory: "/app")
        #expect(
            controlCandidates(platform: .local, configurationFile: "etc/p.yaml", surroundings) == [
                "/run/a/control.sock", "/app/etc/.panelind.sock", "/run/panelind/control.sock",
                "/run/user/1/panelind.sock", "/tmp/x/panelind.sock",
            ])
        let plain = Surroundings(environment: [:], workingDirectory: "/app")
        #expect(controlCandidates(platform: .systemd, configurationFile: nil, plain) == ["/run/panelind/control.sock"])
        #expect(controlCandidates(platform: .local, configurationFile: nil, plain).first == "/app/.panelind.sock")
        #expect(chooseControlPath(["/a", "/b"]) { $0 == "/b" } == "/b")
        #expect(try load("control.path=none", command: frontCommand).good().control.candidates.isEmpty)
        #expect(try load("control.path=c.sock", command: frontCommand).good().control.candidates == ["/app/c.sock"])
    }

    @Test("a user brings its groups, a group alone replaces the user's")
    func users() throws {
        let user = try load("worker.user=app", command: frontCommand).good().worker.identity
        #expect(user == Settings.Identity(uid: 1000, gid: 1001, groups: [1001, 27], userName: "app"))
        let both = try load("worker.user=app", "worker.group=www", command: frontCommand).good().worker.identity
        #expect(both.gid == 33)
        let number = try load("worker.user=4321", "worker.group=99", command: frontCommand).good().worker.identity
        #expect(number == Settings.Identity(uid: 4321, gid: 99, groups: [], userName: nil))
        #expect(try load(command: frontCommand).good().worker.identity.isUnchanged)
    }

    @Test("the machine gets its settings, and knows whether generations may overlap")
    func machine() throws {
        let front = try load("serve.hold=3s", command: frontCommand).good().supervisorSettings(revision: 4)
        #expect(front.revision == 4)
        #expect(front.mode == .front)
        #expect(front.overlaps)
        #expect(front.hold == .seconds(3))
        #expect(!front.worker.needsPreparation)
        guard case .ask(let probe) = front.worker.impliedReadiness else {
            Issue.record("no question")
            return
        }
        #expect(probe.method == .http("/ready"))
        #expect(probe.passesBelow500)
        #expect(probe.period == .seconds(10))
        let tcp = try load("serve.readyPath=none", command: frontCommand).good()
        #expect(tcp.impliedReadiness == .ask(ProbeSettings(.tcp(""))))
        #expect(tcp.serve.readyPath == nil)
        #expect(try !load("serve.upstream=127.0.0.1:3000", command: ["uvicorn"]).good().overlaps)
        #expect(try !load(command: ["uvicorn"]).good().overlaps)
        let fd = ["uvicorn", "{fd}"]
        #expect(try !load(command: fd).good().overlaps)
        #expect(try load("probe.readiness.notify=true", command: fd).good().overlaps)
        #expect(try load("probe.startup.log=ready", command: fd).good().overlaps)
        #expect(try !load("probe.readiness.http=/x", "probe.startup.log=ready", command: fd).good().overlaps)
        let secret = try load("worker.secrets={API_KEY: /secrets/key}", command: frontCommand).good()
        #expect(secret.supervisorSettings(revision: 1).worker.needsPreparation)
    }

    @Test("stop.signal escalates, and its last step has the rest")
    func signals() throws {
        let steps = try load("stop.signal=[{TERM: 1s}, {INT: 2s}]", command: frontCommand).good().stop.steps
        #expect(steps == [StopStep(.terminate, wait: .seconds(1)), StopStep(.interrupt)])
        #expect(try load("stop.signal=SIGQUIT", command: frontCommand).good().stop.steps == [StopStep(.quit)])
        let file = "stop:\n  signal:\n    - TERM: 1s\n    - INT\n"
        #expect(try load(file: file, command: frontCommand).good().stop.steps.count == 2)
    }

    @Test("a method from a stronger source replaces that of the file")
    func methodOverride() throws {
        let settings = try load(
            file: "probe:\n  liveness:\n    http: /a\n    period: 3s\n", "probe.liveness.tcp=true",
            command: frontCommand
        ).good()
        #expect(settings.probe.liveness?.method == .tcp(""))
        #expect(settings.probe.liveness?.period == .seconds(3))
    }

    @Test("limits, watchdog and the words for none are understood")
    func words() throws {
        let settings = try load(
            "worker.limits={openFiles: 1024, core: unlimited, addressSpace: 1GiB}", "worker.watchdog=30s",
            "serve.bodyLimit=none", "serve.responseTimeout=60s", "sidecar.listen=none", "restart.limit=none",
            "worker.stdin=inherit", command: frontCommand
        ).good()
        #expect(settings.worker.limits.openFiles == 1024)
        #expect(settings.worker.limits.core == Settings.Limits.unlimited)
        #expect(settings.worker.limits.addressSpace == 1 << 30)
        #expect(settings.worker.limits.processes == nil)
        #expect(settings.worker.watchdog == .seconds(30))
        #expect(settings.serve.bodyLimit == nil)
        #expect(settings.serve.responseTimeout == .seconds(60))
        #expect(settings.sidecar.listen == nil)
        #expect(settings.worker.stdin == .inherit)
        #expect(try load(file: "worker:\n  stdin: null\n", command: frontCommand).good().worker.stdin == .null)
    }

    @Test("a reload names the changed keys that need a restart of panelind")
    func reload() throws {
        let old = try load(command: frontCommand).good()
        let new = try load(
            "serve.listen=0.0.0.0:9000", "sidecar.listen=none", "stop.budget=20s", "control.path=/run/c.sock",
            command: frontCommand
        ).good()
        #expect(old.keysNeedingRestart(comparedTo: new) == ["serve.listen", "sidecar.listen", "control.path"])
        #expect(old.keysNeedingRestart(comparedTo: old).isEmpty)
        let moved = try load("platform=systemd", command: frontCommand).good()
        #expect(old.keysNeedingRestart(comparedTo: moved) == ["platform", "control.path"])
    }
}
