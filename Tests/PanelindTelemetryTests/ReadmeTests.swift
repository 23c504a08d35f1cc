//  ReadmeTests.swift
//  The README's table of metrics, compared with the page.
//  Read after MetricsTests.swift.

import Foundation
import PanelindCore
import Testing

@testable import PanelindTelemetry

@Suite("the README's metrics") struct ReadmeTests {
    @Test("are those of the page, in its order, with their types and help")
    func table() throws {
        let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("README.md"), encoding: .utf8)
        let begin = try #require(text.range(of: "<!-- metrics -->\n"))
        let end = try #require(text.range(of: "<!-- /metrics -->"))
        let rows = text[begin.upperBound..<end.lowerBound].split(separator: "\n").dropFirst(2)
        let said = rows.map { row in
            row.split(separator: "|").map {
                $0.trimmingCharacters(in: .whitespaces).trimmingCharacters(in: CharacterSet(charactersIn: "`"))
            }
        }
        let health = HealthSnapshot(state: .ready, generation: 1, restarts: 0, retryAfter: .seconds(1))
        let page = Metrics(version: "1", revision: "").page(
            Metrics.Present(health: health, stdoutLines: 0, stderrLines: 0, linesDropped: 0))
        var actual: [[String]] = []
        var help = ""
        for line in page.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3)
            guard words.count == 4, words[2].hasPrefix("panelind_") else { continue }
            if words[1] == "HELP" { help = words[3].prefix(1).lowercased() + words[3].dropFirst().dropLast() }
            if words[1] == "TYPE" { actual.append([String(words[2]), String(words[3]), help]) }
        }
        #expect(said.map { [String($0[0].prefix { $0 != "{" }), $0[1], $0[2]] } == actual)
    }
}
