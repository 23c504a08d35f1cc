//  Configuration.swift
//  Configuration files and variables through the loader, in a world of a few files: settings, or errors with their place.
//  What a file says means the same in the environment and in a flag. Read PanelindSettings/Loader.swift first.

import PanelindCore
import PanelindSettings

/// A world that answers at once, and loads from it.
private enum Bench {
    static let path = "panelind.yaml"

    static func load(
        file: [UInt8], environment: [String: String] = [:], overrides: [String] = []
    ) -> SettingsReport {
        let world = World(
            read: { path, limit in
                guard path == "/app/panelind.yaml" else { return .failure(.missing) }
                return file.count > limit ? .failure(.tooLarge) : .success(file)
            },
            kind: { $0.hasPrefix("/app/no") ? .missing : $0.hasSuffix("/d") || $0 == "/app" ? .directory : .file },
            isExecutable: { !$0.hasSuffix("/d") }, head: { _ in [0x7f, 0x45, 0x4c, 0x46, 0] },
            user: { $0 == "app" ? UserEntry(name: "app", uid: 1000, gid: 1001, groups: [1001]) : nil },
            group: { $0 == "www" ? 33 : nil }, address: { $0 == "localhost" ? "127.0.0.1" : nil },
            bindProblem: { _ in nil },
            userID: 0)
        var environment = environment
        environment["PATH"] = "/usr/bin"
        environment["A"] = "a{port}$$"
        environment["EMPTY"] = ""
        return loadSettings(
            SettingsRequest(overrides: overrides), Surroundings(environment: environment, workingDirectory: "/app"),
            world)
    }

    static let keys = SettingsJudging.keys
    static let words: [String] =
        [
            "\n", "  ", "\t", ": ", "- ", "[", "]", "{", "}", ", ", "\"", "'", "|", ">", "&a ", "*a", "!!str ", "---\n",
            "...\n",
            "#", "%YAML 1.1\n", "\u{FEFF}", "\0", "\u{85}", "\u{2028}", "? ", "~", "null", "none", "${A}", "${B:-x}",
            "${EMPTY}",
            "$$", "{{", "}}", "{socket}", "{port}", "{fd}", "9s", "1m30s", "0s", "-1", "1e9", "64KiB",
            "99999999999999999999",
            "unix:/a", "[::]:80", "127.0.0.1:1", "TERM", "worker:\n", "probe:\n", "\u{301}", "\u{e9}", "\\u0000",
            "\\x41",
        ] + keys.map(\.key)

    /// The errors of a report: sentences on one line, each with a place that exists.
    static func finding(_ report: SettingsReport, lines: Int) -> String? {
        if (report.settings == nil) != !report.problems.isEmpty {
            return "settings with \(report.problems.count) errors"
        }
        for problem in report.problems {
            let text = problem.message
            guard text.hasPrefix("cannot ") else { return "an error that is no sentence: \(text)" }
            if holdsControls(Array(text.utf8)) || text.utf8.contains(0x0a) || text.utf8.contains(0x09) {
                return "a control character in \(text.debugDescription)"
            }
            if text.unicodeScalars.count > 4001 { return "an error of \(text.utf8.count) bytes" }
            for mark in text.ranges(of: path + ":") {
                let number = text[mark.upperBound...].prefix { ("0"..."9").contains($0) }
                // A file that ends too early is wrong on the line behind its last.
                guard let line = Int(number), (1...lines + 1).contains(line) else { return "no such place: \(text)" }
            }
        }
        return nil
    }
}

/// Whole files.
public final class SettingsTarget: FuzzTarget {
    public static let name = "settings"
    public static let words = Bench.words

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        var text = dice.once(in: 5) ? "" : "worker.command: [uvicorn, --uds, \"{socket}\"]\n"
        for _ in 0..<dice.roll(6) {
            let key = dice.pick(Bench.keys)
            let value = dice.once(in: 4) ? dice.some(Bench.words, upTo: 3) : key.example
            let parts = key.key.split(separator: ".")
            if dice.once(in: 3) {
                text += "\(key.key): \(value)\n"
            } else {
                for (depth, part) in parts.enumerated() {
                    text +=
                        String(repeating: "  ", count: depth) + part
                        + (depth == parts.count - 1 ? ": \(value)\n" : ":\n")
                }
            }
        }
        return Array(text.utf8)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        let report = Bench.load(file: input)
        let lines = String(decoding: input, as: UTF8.self).unicodeScalars.count { breaks.contains($0) } + 1
        if let finding = Bench.finding(report, lines: lines) { return finding }
        if report.settings != nil, String(validating: input, as: UTF8.self) == nil { return "taken though not UTF-8" }
        guard let settings = report.settings, dice.once(in: 4) else { return nil }
        return shownAndRead(input, report, settings, &dice)
    }

    /// What YAML 1.1 breaks lines at.
    private let breaks: Set<Unicode.Scalar> = ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"]

    /// What `check` shows of what was given can be given again, and changes nothing.
    private func shownAndRead(
        _ input: [UInt8], _ report: SettingsReport, _ settings: Settings, _ dice: inout Dice
    ) -> String? {
        let given = report.effective.filter { line in
            line.origin.isGiven && line.key != "worker.environment"
                && !["$", "{{", "}}"].contains { line.value.contains($0) }
                // Placeholders and braces of a command are expanded text here.
                && !(line.key == "worker.command" && line.value.contains("{"))
        }
        guard !given.isEmpty else { return nil }
        let line = dice.pick(given)
        guard let key = Bench.keys.first(where: { $0.key == line.key }) else { return nil }
        let again =
            dice.once(in: 2)
            ? Bench.load(file: input, overrides: ["\(line.key)=\(line.value)"])
            : Bench.load(file: input, environment: [key.variable: line.value])
        if again.settings == settings { return nil }
        return "\(line.key)=\(line.value.debugDescription), as shown, means something else: \(again.problems)"
    }
}

/// `KEY=VALUE` by a file, a variable and a flag.
public final class VariableTarget: FuzzTarget {
    public static let name = "variables"
    public static let words = Bench.words

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        let key = dice.pick(Bench.keys)
        return Array("\(key.key)=\(dice.once(in: 3) ? dice.some(Bench.words, upTo: 4) : key.example)".utf8)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        // Neither a variable nor an argument can be anything else.
        guard let text = String(validating: input, as: UTF8.self), !input.contains(0),
            let equals = text.utf8.firstIndex(of: 0x3d)
        else { return nil }
        let value = String(text[text.index(after: equals)...])
        let base = text.hasPrefix("worker.command=") ? "" : "worker.command: [uvicorn, --uds, \"{socket}\"]\n"
        let byFlag = Bench.load(file: Array(base.utf8), overrides: [text])
        if let finding = Bench.finding(byFlag, lines: 1) { return "flag: \(finding)" }
        guard let key = Bench.keys.first(where: { $0.key.utf8.elementsEqual(text[..<equals].utf8) }) else { return nil }
        let byVariable = Bench.load(file: Array(base.utf8), environment: [key.variable: value])
        if let finding = Bench.finding(byVariable, lines: 1) { return "variable: \(finding)" }
        if byFlag.settings != byVariable.settings {
            return "by a variable \(byVariable.problems), by a flag \(byFlag.problems)"
        }
        let isFlow = key.mayBeStructured && ["[", "{"].contains(value.drop { $0 == " " }.prefix(1))
        if isFlow, value.unicodeScalars.contains(where: { "\n\r\t#\u{85}\u{2028}\u{2029}".unicodeScalars.contains($0) })
        {
            return nil
        }
        let written = isFlow ? value : Self.quoted(value)
        let byFile = Bench.load(file: Array("\(base)\(key.key): \(written)\n".utf8))
        if byFile.settings != byFlag.settings { return "in a file \(byFile.problems), by a flag \(byFlag.problems)" }
        return nil
    }

    /// Text between double quotes, everything beyond plain ASCII escaped (YAML 1.1 section 9.1).
    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            if scalar == "\"" || scalar == "\\" || !(0x20..<0x7f).contains(scalar.value) {
                let digits = String(scalar.value, radix: 16)
                out += "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
