//  Restart.swift
//  `panelind restart`: works in every state; counts no failure and clears the count.
//  Answered when done: 0, or 1 with the reason on standard error.

import ArgumentParser
import PanelindRuntime

struct Restart: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Replace the worker now: stop signal, grace, KILL, start. Waits until the next one is ready.")

    @OptionGroup var options: AskOptions

    func run() throws { throw ExitCode(options.ask(Question("/restart", method: "POST"))) }
}
