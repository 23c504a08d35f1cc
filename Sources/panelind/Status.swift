//  Status.swift
//  `panelind status`: what it is doing, in ten lines; with --watch again and again in place.
//  The text is the daemon's own.

import ArgumentParser
import Glibc
import PanelindRuntime
import PanelindSystem

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "State, worker, restarts, last exit, next start, requests of the running panelind.")

    @Flag(help: "One JSON object for machines.")
    var json = false

    @Flag(help: "Once a second, redrawn in place, until Ctrl-C.")
    var watch = false

    @OptionGroup var options: AskOptions

    func run() throws {
        guard watch else { throw ExitCode(options.ask(Question("/status", json: json))) }
        SignalSource.unblockAll()
        let redraws = Terminal.isOutput
        var drawn = 0
        while true {
            var answer: [UInt8] = []
            let (message, code) = PanelindRuntime.ask(Question("/status", json: json), control: options.control) {
                answer += $0
                return true
            }
            if let message {
                complain(message + "\n")
                throw ExitCode(code)
            }
            guard put(redraws ? drawing(answer, over: drawn) : answer) else { return }
            drawn = answer.count { $0 == 10 }
            sleep(1)
        }
    }

    /// The lines, cut to the terminal's width so that each takes one row, over as many drawn before.
    private func drawing(_ answer: [UInt8], over drawn: Int) -> [UInt8] {
        let width = Terminal.columns ?? 80
        var text = drawn > 0 ? "\u{1B}[\(drawn)A" : ""
        for line in String(decoding: answer, as: UTF8.self).split(separator: "\n") {
            text += "\u{1B}[2K\(line.prefix(width))\n"
        }
        return Array((text + "\u{1B}[J").utf8)
    }
}
