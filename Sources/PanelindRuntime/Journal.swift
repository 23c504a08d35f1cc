//  Journal.swift
//  Where records go when they shall go to the journal: to journald, or to standard output where there is none.
//  Called once, before the output thread starts. Read after Daemon.swift.

import PanelindOutput
import PanelindSystem

extension OutputConfiguration {
    /// Makes `journal` work, or writes json to standard output instead and says why.
    mutating func reachJournal() -> String? {
        guard format == .journal else { return nil }
        largeEntrySender = { SystemdLibrary.sendToJournal($0) }
        let error = Output.journalError(at: journalPath)
        guard error != 0 else { return nil }
        format = .json
        return "cannot reach the journal at \(journalPath): \(SystemError(error)); log.format=journal writes json to"
            + " standard output instead"
    }
}
