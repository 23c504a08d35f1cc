//  HouseRules.swift
//  What the house demands of its own sources: rooms, imports, purity, sizes, first lines.
//  Reads the tree it is compiled from; an absent room is not an error, since rooms are built one by one.

import Foundation
import Testing

/// The source tree, found from this file.
private enum House {
    static let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    struct File: Sendable, CustomTestStringConvertible {
        let module: String
        let name: String
        let lines: [String]
        var testDescription: String { "\(module)/\(name)" }

        /// The lines without comments, roughly: what follows `//` outside of a string.
        let code: [String]

        init(module: String, name: String, text: String) {
            self.module = module
            self.name = name
            lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
            code = lines.map { line in
                if line.first == "/" { return "" }
                guard let comment = line.firstRange(of: "//") else { return line }
                let before = line[..<comment.lowerBound]
                return before.count(where: { $0 == "\"" }) % 2 == 0 ? String(before) : line
            }
        }

        var imports: [String] {
            code.compactMap { line in
                let words = line.split(separator: " ").map(String.init).filter { $0 != "@preconcurrency" }
                let before: Set = ["public", "internal", "package", "@testable", "@_exported"]
                guard let at = words.firstIndex(of: "import"), at + 1 < words.count,
                    words[..<at].allSatisfy(before.contains)
                else { return nil }
                let kinds: Set = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
                let name = kinds.contains(words[at + 1]) && at + 2 < words.count ? words[at + 2] : words[at + 1]
                return name.split(separator: ".").first.map(String.init)
            }
        }
    }

    static let sources = files(below: "Sources")

    static func files(below folder: String) -> [File] {
        let top = root.appendingPathComponent(folder).path
        guard let walk = FileManager.default.enumerator(atPath: top) else { return [] }
        return walk.compactMap { $0 as? String }.filter { $0.hasSuffix(".swift") }.sorted().compactMap { path in
            guard let text = try? String(contentsOfFile: top + "/" + path, encoding: .utf8) else { return nil }
            let module = path.split(separator: "/").first.map(String.init) ?? ""
            return File(module: module, name: (path as NSString).lastPathComponent, text: text)
        }
    }

    /// DESIGN section 1: what each room may use of the others. All may use Core; Runtime and `panelind` may use all.
    static let rooms: Set = [
        "PanelindCore", "PanelindSettings", "CPanelindSystem", "CYaml", "PanelindSystem", "PanelindOutput",
        "PanelindHTTP", "PanelindFront", "PanelindControl", "PanelindTelemetry", "PanelindRuntime",
        "PanelindSimulation", "PanelindFuzz", "panelind", "panelind-sim", "panelind-fuzz", "scripted-worker",
    ]
    static let doors: [String: Set<String>] = [
        "PanelindCore": [], "CPanelindSystem": [], "CYaml": [],
        "PanelindSettings": ["PanelindCore", "CYaml"],
        "PanelindSystem": ["PanelindCore", "CPanelindSystem"],
        "PanelindOutput": ["PanelindCore"],
        "PanelindHTTP": ["PanelindCore"],
        "PanelindFront": ["PanelindCore", "PanelindHTTP"],
        "PanelindControl": ["PanelindCore", "PanelindHTTP"],
        "PanelindTelemetry": ["PanelindCore", "PanelindHTTP"],
        "PanelindRuntime": [
            "PanelindCore", "PanelindSettings", "PanelindSystem", "PanelindOutput", "PanelindHTTP", "PanelindFront",
            "PanelindControl", "PanelindTelemetry",
        ],
        "panelind": [
            "PanelindCore", "PanelindSettings", "PanelindSystem", "PanelindOutput", "PanelindHTTP", "PanelindFront",
            "PanelindControl", "PanelindTelemetry", "PanelindRuntime",
        ],
        "PanelindSimulation": ["PanelindCore"],
        "panelind-sim": ["PanelindCore", "PanelindSimulation"],
        "PanelindFuzz": [
            "PanelindCore", "PanelindSettings", "PanelindSystem", "PanelindOutput", "PanelindHTTP", "PanelindFront",
            "PanelindControl",
        ],
        "panelind-fuzz": ["PanelindFuzz"],
        "scripted-worker": ["CPanelindSystem"],
    ]
}

@Suite("House rules")
struct HouseRules {
    @Test("the tree is found")
    func found() {
        #expect(House.sources.contains { $0.name == "Supervisor.swift" })
    }

    @Test("a module imports only what its room has a door to", arguments: House.sources)
    private func imports(file: House.File) {
        guard let doors = House.doors[file.module] else {
            Issue.record("\(file.module) is no room of the house")
            return
        }
        for name in file.imports where House.rooms.contains(name) {
            #expect(doors.contains(name), "\(file.testDescription) imports \(name)")
        }
    }

    @Test("Package.swift opens no other doors")
    func package() throws {
        let text = try String(contentsOf: House.root.appendingPathComponent("Package.swift"), encoding: .utf8)
        let declaration = try Regex(
            #"\.(target|executableTarget)\(\s*name: "([^"]+)"(?:,\s*dependencies: \[([^\]]*)\])?"#)
        let quoted = try Regex(#"(product\(name: )?"([^"]+)""#)
        let targets = text.matches(of: declaration)
        #expect(targets.count >= 10)
        for target in targets {
            let name = target.output[2].substring.map(String.init) ?? ""
            guard let doors = House.doors[name] else {
                Issue.record("\(name) is no room of the house")
                continue
            }
            for word in (target.output[3].substring ?? "").matches(of: quoted) {
                let dependency = word.output[2].substring.map(String.init) ?? ""
                guard House.rooms.contains(dependency) else { continue }
                #expect(doors.contains(dependency), "\(name) depends on \(dependency)")
            }
        }
    }

    @Test("no source imports Foundation", arguments: House.sources)
    private func foundation(file: House.File) {
        #expect(!file.imports.contains { $0.hasPrefix("Foundation") })
    }

    @Test("the core imports nothing, waits for nothing, and knows neither clock nor chance")
    func purity() {
        let words = [
            "Task", "async", "await", ".random(", "ContinuousClock", "SuspendingClock", "SystemRandom", "@MainActor",
        ]
        for file in House.sources where file.module == "PanelindCore" {
            #expect(file.imports.isEmpty, "\(file.name)")
            for (number, line) in file.code.enumerated() {
                let found = words.first { word in
                    word.first?.isLetter == true
                        ? line.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "_" })
                            .contains { $0 == word }
                        : line.contains(word)
                }
                #expect(found == nil, "\(file.name):\(number + 1) has \(found ?? "")")
            }
        }
    }

    @Test("a source has at most 400 lines", arguments: House.sources)
    private func size(file: House.File) {
        // The last line's newline opens one more, empty one.
        #expect(file.lines.count <= 401)
    }

    @Test("the core stays an afternoon's reading (docs/decisions/0001)")
    private func coreSize() {
        let lines = House.sources.filter { $0.module == "PanelindCore" }.map { $0.lines.count - 1 }.reduce(0, +)
        #expect(lines <= 3500)
    }

    @Test("a source opens with its name and what it decides, in three lines", arguments: House.sources)
    private func opening(file: House.File) {
        #expect(file.lines.first == "//  \(file.name)")
        for line in file.lines.prefix(3) {
            #expect(line.hasPrefix("//") && line.count > 4, "\(file.testDescription)")
        }
    }

    @Test("what the compiler does not check is in one file: the queue to the output thread")
    func unchecked() {
        let words = ["@unchecked Sendable", "nonisolated(unsafe)"]
        let files = House.sources.filter { file in words.contains { word in file.code.contains { $0.contains(word) } } }
        #expect(files.allSatisfy { $0.module == "PanelindOutput" }, "\(files.map(\.testDescription))")
        #expect(files.count <= 1, "\(files.map(\.testDescription))")
    }

    @Test("no source forces: no `try!`, no `as!`", arguments: House.sources)
    private func forces(file: House.File) {
        for (number, line) in file.code.enumerated() {
            #expect(!line.contains("try!") && !line.contains("as!"), "\(file.testDescription):\(number + 1)")
        }
    }
}
