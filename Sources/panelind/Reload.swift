//  Reload.swift
//  `panelind reload`: a bad configuration is refused with its errors and changes nothing.
//  Answered when done: 0, or 1 with the reason on standard error.

import ArgumentParser
import PanelindRuntime

struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Read the configuration again and replace the worker without losing a request. Waits for the takeover.")

    @OptionGroup var options: AskOptions

    func run() throws { throw ExitCode(options.ask(Question("/reload", method: "POST"))) }
}
