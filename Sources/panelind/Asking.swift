//  Asking.swift
//  What the commands that ask the running panelind share: --control, signals, printing.
//  0 for an answer, 1 with one line on standard error for none.

import ArgumentParser
import Glibc
import PanelindRuntime
import PanelindSystem

/// The options of every command that asks.
struct AskOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The control socket; else where control.path puts it.", valueName: "path"))
    var control: String?

    /// Asks and prints what comes; the exit code.
    func ask(_ question: Question) -> Int32 {
        SignalSource.unblockAll()
        let (message, code) = PanelindRuntime.ask(question, control: control) { put($0) }
        if let message { complain(message + "\n") }
        return code
    }
}

/// Writes to standard output; false once nobody reads it.
func put(_ bytes: [UInt8]) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
        let written = rest.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
        if written < 0 && errno == EINTR { continue }
        guard written > 0 else { return false }
        rest = rest.dropFirst(written)
    }
    return true
}
