//  Check.swift
//  `panelind check`: every effective setting with its origin, and advice; starts nothing.
//  Settings go to standard output, errors to standard error; 0 or 78.

import ArgumentParser
import PanelindRuntime

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Validate the settings and show each with where it came from; start nothing.")

    @Flag(help: "One JSON object for machines.")
    var json = false

    @OptionGroup var options: SettingsOptions

    func run() throws {
        let report = checkSettings(options.request)
        print(json ? report.json() : report.text(), terminator: "")
        if !json { complain(report.errorText()) }
        throw ExitCode(report.problems.isEmpty ? 0 : 78)
    }
}
