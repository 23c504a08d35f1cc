//  Probe.swift
//  `panelind probe URL`: one GET, for HEALTHCHECK in images without curl.
//  0 for 200 to 399, else 1 with one line on standard error.

import ArgumentParser
import PanelindRuntime

struct Probe: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Ask one URL once: exit 0 if it answers 200 to 399, else 1.")

    @Argument(help: "http://HOST:PORT/PATH or unix:SOCKET:/PATH.")
    var url: String

    @Option(help: ArgumentHelp("Longest wait, as 2s or 500ms.", valueName: "duration"))
    var timeout = "2s"

    func run() throws {
        let (message, code) = askOnce(url, timeout: timeout)
        if let message { complain(message + "\n") }
        throw ExitCode(code)
    }
}
