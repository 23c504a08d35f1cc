//  main.swift
//  Blocks the signals before anything else can start a thread, then hands over to the command line.
//  Synchronous: an async main would wake once a second for ever.

import Glibc
import PanelindRuntime
import PanelindSystem

SignalSource.blockAll()
if let request = plainRun(CommandLine.arguments) {
    let (message, code) = Daemon.run(request)
    complain(message)
    exit(code)
}
Panelind.main()
