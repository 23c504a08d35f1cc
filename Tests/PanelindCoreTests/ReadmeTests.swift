//  ReadmeTests.swift
//  What the README says of states and exit codes, compared with the code.
//  Read after HouseRules.swift.

import Foundation
import PanelindCore
import Testing

@Suite("the README") struct ReadmeTests {
    private let text: String

    init() throws {
        let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        text = try String(contentsOf: root.appendingPathComponent("README.md"), encoding: .utf8)
    }

    @Test("names every state, in order, with what /ready answers in it")
    func states() throws {
        let begin = try #require(text.range(of: "<!-- states -->\n"))
        let end = try #require(text.range(of: "<!-- /states -->"))
        let rows = text[begin.upperBound..<end.lowerBound].split(separator: "\n").dropFirst(2)
        let said = rows.map { row in row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) } }
        let actual = State.allCases.map { state in
            ["`\(state.rawValue)`", state.reason.map { "503 `\($0.rawValue)`" } ?? "200"]
        }
        #expect(said.map { [$0[0], $0[2]] } == actual)
    }
}
