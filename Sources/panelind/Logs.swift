//  Logs.swift
//  `panelind logs`: the worker's recent output from memory, and what follows.
//  Lines as the worker wrote them, without what would steer the terminal.

import ArgumentParser
import PanelindRuntime

struct Logs: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The worker's recent output, from the ring in memory.")

    @Option(name: .short, help: ArgumentHelp("How many lines, 0 to 10000.", valueName: "n"))
    var n = 50

    @Flag(name: .short, help: "Follow: print what comes, until Ctrl-C.")
    var follow = false

    @OptionGroup var options: AskOptions

    func validate() throws {
        guard (0...10_000).contains(n) else { throw ValidationError("-n \(n): write a number from 0 to 10000") }
    }

    func run() throws { throw ExitCode(options.ask(Question("/logs?lines=\(n)&follow=\(follow)"))) }
}
