//  Why.swift
//  `panelind why`: the causal chain that led to the present state, and what may help.
//  The text is the daemon's own.

import ArgumentParser
import PanelindRuntime

struct Why: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What happened, what panelind decided and by which setting, and the worker's last lines.")

    @Flag(help: "One JSON object for machines.")
    var json = false

    @OptionGroup var options: AskOptions

    func run() throws { throw ExitCode(options.ask(Question("/why", json: json))) }
}
