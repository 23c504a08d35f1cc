//  YamlTests.swift
//  What YAML is accepted and how the rest is refused, with line and column; and that nothing crashes.
//  Read after Equipment.swift.

import PanelindCore
import Testing

@testable import PanelindSettings

@Suite("yaml") struct YamlTests {
    @Test("a document without content is no settings", arguments: ["", "# only a comment\n", "---\n", "\n\n"])
    func empty(text: String) {
        let yaml = parseYaml(text)
        #expect(yaml.problems.isEmpty)
        #expect(yaml.root?.isAbsent ?? true)
    }

    @Test("every scalar knows its place and its quotes")
    func marks() throws {
        let yaml = parseYaml("a: 5\nb:\n  - \"x\"\n  - y\n")
        guard case .map(let entries)? = yaml.root?.content else {
            Issue.record("not a map")
            return
        }
        #expect(entries[0].value == Node(.scalar("5", quoted: false), at: Mark(line: 1, column: 4)))
        #expect(entries[1].keyMark == Mark(line: 2, column: 1))
        #expect(entries[1].value.flow == "[x, y]")
        guard case .list(let items) = entries[1].value.content else { return }
        #expect(items[0] == Node(.scalar("x", quoted: true), at: Mark(line: 3, column: 5)))
    }

    @Test(
        "what settings never need is refused with its place",
        arguments: [
            ("a: 1\na: 2\n", 2, 1, "duplicate key a, first at line 1; keep one"),
            ("a: &x 1\n", 1, 4, "anchors are not accepted; write the value itself"),
            ("a: !!str 1\n", 1, 4, "tags are not accepted; remove the !"),
            ("a: 1\n---\nb: 2\n", 2, 1, "a second document; settings are one document: remove the ---"),
            ("? [a, b]\n: 1\n", 1, 3, "a key that is not text; put quotes around text with braces or brackets"),
            ("a: \"x\\0y\"\n", 1, 4, "a NUL character; no setting can hold one"),
            (
                "a:\n\t- b\n", 2, 1,
                "not YAML: found character that cannot start any token; indent with spaces, not tabs"
            ),
            ("a: 1\nb: \u{1}\n", 2, 4, "not YAML: control characters are not allowed"),
        ] as [(String, Int, Int, String)])
    func refused(text: String, line: Int, column: Int, message: String) {
        let yaml = parseYaml(text)
        #expect(yaml.problems == [YamlProblem(mark: Mark(line: line, column: column), message: message)])
    }

    @Test("an alias is refused beside its anchor")
    func alias() {
        let yaml = parseYaml("a: &x 1\nb: *x\n")
        #expect(yaml.problems.map(\.message).last == "aliases are not accepted; write the value itself")
    }

    @Test("braces of ours without quotes get a hint")
    func hint() {
        let yaml = parseYaml("command: [a, --bind=unix:{socket}]\n")
        #expect(yaml.problems.first?.message.hasSuffix("; put quotes around text with {socket}") == true)
    }

    @Test("bytes that are not UTF-8 are refused", arguments: [[0xFF, 0xFE, 0x61, 0], [0x61, 0x3A, 0x20, 0xC3]])
    func notUTF8(bytes: [UInt8]) {
        let yaml = parseYaml(bytes)
        #expect(yaml.root == nil)
        #expect(yaml.problems.count == 1)
    }

    @Test("more than a mebibyte and more than sixteen levels are refused")
    func bounds() {
        let long = parseYaml(String(repeating: "#", count: (1 << 20) + 1))
        #expect(long.problems.map(\.message) == ["1048577 bytes are too much for settings; at most 1048576 are read"])
        for deep in [String(repeating: "[", count: 100_000), String(repeating: "{a: ", count: 100_000)] {
            #expect(parseYaml(deep).problems.map(\.message) == ["nested deeper than 16 levels"])
        }
    }

    @Test("four thousand mutated files neither crash nor hang", arguments: 0..<4)
    func fuzz(seed: Int) {
        var random = RandomNumbers(seed: UInt64(seed))
        let seeds = [
            "worker:\n  command: [uvicorn, \"{socket}\"]\n  environment: {A: \"${B:-x}\"}\nstop: {budget: 9s}\n",
            "probe:\n  readiness:\n    http: /ready\n    period: 5s\n  startup: {log: \"a.*b\", deadline: 1m30s}\n",
            "stop:\n  signal: [{TERM: 5s}, {INT: 2s}]\nserve:\n  listen: \"[::]:${PORT:-8080}\"\n",
            "worker.command: ['{{x}}', '$$', '${PATH}']\nworker:\n  limits: {openFiles: 5, core: 0}\n",
        ]
        let pieces = [
            "{", "}", "[", "]", "${", "$$", "{{", ":", "- ", "\n", "\t", "\"", "'", "*x", "&x", "!", "\0", "-1", "ms",
            "9999999999999999999", "1.5", "é", "#", "|", ">", "---\n", "~", "null",
        ]
        for round in 0..<1000 {
            var bytes = Array(seeds[Int.random(in: 0..<seeds.count, using: &random)].utf8)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(in: 0...bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where at < bytes.count: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1 where at < bytes.count:
                    bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...9, using: &random)))
                case 2: bytes += bytes.prefix(at)
                default:
                    let piece = pieces[Int.random(in: 0..<pieces.count, using: &random)]
                    bytes.insert(contentsOf: Array(piece.utf8), at: at)
                }
            }
            _ = parseYaml(bytes)
            // The whole way is longer: every fourth takes it.
            guard round % 4 == 0 else { continue }
            var world = FakeWorld().world
            let inner = world.read
            world.read = { [bytes] in $0 == "/app/panelind.yaml" ? .success(bytes) : inner($0, $1) }
            let surroundings = Surroundings(
                environment: ["PATH": "/usr/bin", "PANELIND_STOP": String(decoding: bytes, as: UTF8.self)],
                workingDirectory: "/app")
            let report = loadSettings(SettingsRequest(), surroundings, world)
            #expect(report.problems.isEmpty == (report.settings != nil))
            #expect(!report.json().isEmpty && !report.text().isEmpty)
        }
    }
}
