//  ReportTests.swift
//  What `check` prints, what the reference says, the shipped file, secrets, and the answers of the real machine.
//  Read after LoaderTests.swift.

import Glibc
import PanelindCore
import Testing

@testable import PanelindSettings

@Suite("reports") struct ReportTests {
    @Test("check prints aligned lines with origins, then advice and warnings; errors are apart")
    func text() {
        let report = load(
            "stop.budget=20s", command: ["uvicorn"], environment: ["K_SERVICE": "s", "PANELIND_X": "1"])
        let lines = report.text().split(separator: "\n").map(String.init)
        func line(_ key: String) -> String? { lines.first { $0.hasPrefix(key + " ") } }
        #expect(line("platform")?.hasSuffix("(default: K_SERVICE is set)") == true)
        #expect(line("stop.budget")?.hasSuffix("(flag: --set stop.budget)") == true)
        #expect(line("restart.limit")?.hasSuffix("(platform)") == true)
        #expect(line("worker.command")?.hasSuffix("(flag: --)") == true)
        #expect(line("probe.readiness")?.hasSuffix("(default: 1s of life, or READY=1)") == true)
        let equals = lines.filter { $0.contains(" = ") }.compactMap { $0.firstIndex(of: "=")?.utf16Offset(in: $0) }
        #expect(Set(equals).count == 1)
        let advice = "advice: stop.budget: 20s is beyond the 10s after which cloudrun kills; write less than 10s"
        #expect(lines.contains(advice))
        #expect(lines.contains { $0.hasPrefix("warning: unknown variable PANELIND_X") })
        let bad = load("stop.budget=5", command: ["uvicorn"])
        #expect(!bad.text().contains("cannot use"))
        #expect(
            bad.errorText()
                == "cannot use stop.budget=5: a number without a unit; write 5s (--set stop.budget)\n")
    }

    @Test("every setting is printed, probes without a method as one line")
    func complete() {
        let shown = Set(load(command: frontCommand).effective.map(\.key))
        for setting in Table.all where !setting.key.hasPrefix("probe.") { #expect(shown.contains(setting.key)) }
        #expect(shown.isSuperset(of: ["probe.startup", "probe.readiness", "probe.liveness", "probe.startup.deadline"]))
        let given = Set(load("probe.liveness.http=/x", command: frontCommand).effective.map(\.key))
        #expect(given.isSuperset(of: ["probe.liveness.http", "probe.liveness.period", "probe.liveness.timeout"]))
        #expect(!given.contains("probe.liveness"))
    }

    @Test("the JSON of check is YAML too, and says the same")
    func json() throws {
        let report = load("log.project=\"a\\b\u{7}\"", command: frontCommand)
        let yaml = parseYaml(report.json())
        #expect(yaml.problems.isEmpty)
        guard case .map(let entries)? = yaml.root?.content else {
            Issue.record("no object")
            return
        }
        #expect(entries.map(\.key) == ["ok", "file", "settings", "advice", "warnings", "errors"])
        #expect(entries[0].value.text == "true")
        guard case .list(let settings) = entries[2].value.content else { return }
        #expect(settings.count == report.effective.count)
        #expect(jsonString("a\"\\\n\u{1}é") == "\"a\\\"\\\\\\n\\u0001é\"")
        let bad = load("stop.budget=5", command: frontCommand).json()
        #expect(bad.contains("\"ok\": false"))
        #expect(bad.contains("{\"key\": \"stop.budget\", \"message\": \"cannot use stop.budget=5: "))
    }

    @Test("no secret reaches any output")
    func secrets() {
        let report = load(
            "worker.secrets={API_KEY: /secrets/key}", "worker.environment={DB_PASSWORD: hunter2, T: \"${TOKEN_IN}\"}",
            "worker.environment.DB_PASSWORD=hunter2", command: frontCommand,
            environment: ["TOKEN_IN": "expanded-token"])
        let all = report.text() + report.json() + report.errorText()
        for secret in ["s3cr3t-value", "hunter2", "expanded-token"] { #expect(!all.contains(secret)) }
        #expect(report.line("worker.secrets")?.value == "{API_KEY: /secrets/key}")
    }

    @Test("a secret loses one newline and must have content")
    func readSecrets() {
        var world = FakeWorld()
        world.files["/crlf"] = "a\r\n"
        world.files["/two"] = "a\n\n"
        world.files["/nul"] = "a\0b"
        world.files["/big"] = String(repeating: "x", count: (64 << 10) + 1)
        func read(_ path: String) -> String {
            switch readSecret(path, world.world) {
            case .success(let text): text
            case .failure(let error): error.message
            }
        }
        #expect(read("/secrets/key") == "s3cr3t-value")
        #expect(read("/crlf") == "a")
        #expect(read("/two") == "a\n")
        #expect(read("/secrets/empty") == "cannot read /secrets/empty: empty; write the value into it")
        #expect(read("/nul") == "cannot read /nul: it holds a NUL byte, which no variable can")
        #expect(read("/big") == "cannot read /big: too large")
        #expect(read("/secrets") == "cannot read /secrets: a directory; write the path of the file in it")
    }

    @Test("each declared example would be accepted, and each default is shown in the reference")
    func examples() throws {
        for setting in Table.all {
            let root = try #require(parseYaml(setting.example).root, "\(setting.key)")
            #expect(setting.accepts(root)?.why == nil, "\(setting.key)")
            #expect(!setting.defaultText.isEmpty && setting.doc.hasSuffix("."), "\(setting.key)")
        }
        let rows = settingsReference()
        #expect(rows.contains { $0.key == "probe.NAME.http" && $0.variable == "PANELIND_PROBE_NAME_HTTP" })
        #expect(rows.first { $0.key == "stop.budget" }?.defaultText == "`25s`; `9s` on cloudrun and local")
        let fixed = ["platform", "serve.listen", "sidecar.listen", "control.path"]
        #expect(rows.filter(\.needsRestart).map(\.key) == fixed)
        #expect(Set(rows.map(\.key)).count == rows.count)
        for line in settingsMarkdown().split(separator: "\n") {
            #expect(line.hasPrefix("| ") || line.hasPrefix("|---"))
        }
    }

    /// `make reference` writes them anew.
    @Test(
        "etc/panelind.yaml and docs/settings.md are what the table says",
        arguments: ["etc/panelind.yaml", "docs/settings.md"])
    func generated(path: String) throws {
        let text =
            path.hasSuffix(".md")
            ? "# Settings\n\nMade from the table in Sources/PanelindSettings by `make reference`.\n\n"
                + settingsMarkdown()
            : settingsTemplate()
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        if getenv("UPDATE_REFERENCE") != nil {
            let file = try #require(fopen("/\(root)/\(path)", "w"))
            fputs(text, file)
            fclose(file)
        }
        let bytes = try World.real.read("/\(root)/\(path)", 1 << 20).get()
        #expect(String(decoding: bytes, as: UTF8.self) == text)
    }

    @Test("the shipped file without its comment signs names only known keys, each once")
    func uncommented() throws {
        // The head ends at the first empty line.
        let lines = settingsTemplate().split(separator: "\n", omittingEmptySubsequences: false).drop { !$0.isEmpty }
        let text = lines.map { $0.hasPrefix("# ") ? String($0.dropFirst(2)) : String($0) }.joined(separator: "\n")
        let report = load(file: text)
        let unknown = report.messages.filter { $0.contains("unknown key") || $0.contains("cannot read panelind.yaml") }
        #expect(unknown == [])
        // Every key but those of the two probes that take the same.
        let given = Set(report.effective.filter { $0.origin.name == "file" }.map(\.key))
        #expect(given.isSuperset(of: ["stop.grace", "log.project", "worker.limits.core", "probe.startup.deadline"]))
    }

    @Test("the real machine answers about files, users, hosts and ports")
    func real() throws {
        let world = World.real
        #expect(world.kind("/") == .directory)
        #expect(world.kind("/no/such/file") == .missing)
        #expect(world.kind("/dev/null") == .other)
        #expect(world.read("/", 10) == .failure(.directory))
        #expect(world.read("/no/such/file", 10) == .failure(.missing))
        #expect(world.user("root")?.uid == 0)
        #expect(world.user("0")?.name == "root")
        #expect(world.user("no-such-user-here") == nil)
        #expect(world.group("root") == 0)
        #expect(world.address("127.0.0.1") == "127.0.0.1")
        let check = CommandCheck(directory: "/", environment: ["PATH": "/usr/bin:/bin"], world: world)
        guard case .found(let path) = check.find("sh") else {
            Issue.record("no sh")
            return
        }
        #expect(path.hasSuffix("/sh"))
        let surroundings = Surroundings.current
        #expect(surroundings.workingDirectory.hasPrefix("/"))
        #expect(surroundings.environment["PATH"] != nil)
    }

    @Test("a port that somebody listens on cannot be bound, a free one can")
    func realPorts() throws {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(fd >= 0)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let port: Int =
            withUnsafeMutablePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    guard bind(fd, address, size) == 0, listen(fd, 1) == 0 else { return 0 }
                    getsockname(fd, address, &size)
                    return 1
                }
            } == 1 ? Int(in_port_t(bigEndian: name.sin_port)) : 0
        try #require(port > 0)
        let address = ListenAddress.tcp(host: "127.0.0.1", port: port)
        #expect(World.real.bindProblem(address) == "Address already in use")
        close(fd)
        #expect(World.real.bindProblem(address) == nil)
    }
}
