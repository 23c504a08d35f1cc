//  Stop.swift
//  `panelind stop`: everything ends within stop.budget.
//  Answered when done: 0, or 1 with the reason on standard error.

import ArgumentParser
import PanelindRuntime

struct Stop: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Stop the worker and panelind, as SIGTERM does. Waits for the end.")

    @OptionGroup var options: AskOptions

    func run() throws { throw ExitCode(options.ask(Question("/stop", method: "POST"))) }
}
