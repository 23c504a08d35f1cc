//  Run.swift
//  `panelind run`: supervises in the foreground until told to stop.
//  All of it is Daemon.run; it returns only where nothing could be started.

import ArgumentParser
import PanelindRuntime

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Supervise the worker in the foreground until told to stop.")

    @OptionGroup var options: SettingsOptions

    func run() throws {
        let (message, code) = Daemon.run(options.request)
        complain(message)
        throw ExitCode(code)
    }
}
