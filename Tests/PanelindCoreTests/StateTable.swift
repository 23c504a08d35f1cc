//  StateTable.swift
//  What every kind of event does in every place of the machine: the places before a stop.
//  A combination that has no row changes nothing. `-> state:` is the new public state. Read Setups.swift first.

@testable import PanelindCore

/// The rows of the table, by place and kind of event.
enum StateTable {
    static let rows = parse(starting + "\n" + leaving)

    /// `[setup]` opens a place; a line is an event and what it does; a line that begins with a space goes on.
    private static func parse(_ text: String) -> [Setup: [EventKind: String]] {
        var rows: [Setup: [EventKind: String]] = [:]
        var setup: Setup?
        var kind: EventKind?
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if line.hasPrefix("[") {
                setup = Setup(rawValue: String(line.dropFirst().dropLast()))
                if let setup { rows[setup] = [:] }
            } else if let setup, line.hasPrefix(" "), let kind {
                rows[setup]?[kind]? += " " + words.joined(separator: " ")
            } else if let setup, let first = words.first, let newKind = EventKind(rawValue: String(first)) {
                kind = newKind
                rows[setup]?[newKind] = words.dropFirst().joined(separator: " ")
            } else {
                fatalError("a row of the table is not one: \(line)")
            }
        }
        return rows
    }

    private static let starting = """
        [waiting]
        start             extend 69s, g1 prepare
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s, flush
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, flush
        suspend           suspend self
        resume            drop idle
        [preparing]
        prepared          g1 spawn
        prepareFailed     -> backoff: g1 forget
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 forget, flush
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 forget, flush
        restart           g1 forget, g2 prepare
        reload            tell reloading, g1 forget, g2 prepare
        suspend           suspend self
        resume            drop idle
        [spawning]
        spawned           extend 69s, g1 ask readiness 1
        spawnFailed       -> backoff: g1 forget
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        reload            tell reloading
        suspend           suspend self
        resume            drop idle
        [spawningToLeave]
        spawned           g1 TERM to group
        spawnFailed       g1 forget, g2 prepare
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s
        reload            tell reloading
        suspend           suspend self
        resume            drop idle
        [starting]
        exited            -> backoff: g1 abandon readiness 1, g1 sweep KILL
        readinessPassed   -> ready: route g1, tell ready, g1 ask liveness 1
        saysReady         -> ready: route g1, tell ready, g1 abandon readiness 1, g1 ask liveness 1
        triggersWatchdog  -> backoff: g1 abandon readiness 1, g1 ABRT to leader
        extendsTimeout    extend 99s
        stop              -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 abandon readiness 1, g1
                          TERM to group
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 abandon readiness 1, g1
                          TERM to group, cut g1, g1 sweep KILL
        restart           g1 abandon readiness 1, g1 TERM to group
        reload            tell reloading, g1 abandon readiness 1, g1 TERM to group
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle, g1 abandon readiness 1
        [ready]
        exited            -> backoff: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 sweep KILL
        saysReady         g1 abandon readiness 2
        triggersWatchdog  -> backoff: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 ABRT to leader
        stop              -> draining: route last call g1, tell stopping, extend 9s, g1 abandon readiness 2, g1
                          abandon liveness 2
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 abandon readiness 2, g1
                          abandon liveness 2, cut g1, g1 sweep KILL
        restart           -> starting: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 TERM to group
        reload            tell reloading, g2 prepare
        reloadRefused     tell reloading, tell ready
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle, g1 abandon readiness 2, g1 abandon liveness 2
        [doubted]
        exited            -> backoff: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 abandon
                          connection 1, g1 sweep KILL
        saysReady         g1 abandon readiness 2
        triggersWatchdog  -> backoff: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 abandon
                          connection 1, g1 ABRT to leader
        connectionFailed  -> unready: route hold
        stop              -> draining: route last call g1, tell stopping, extend 9s, g1 abandon readiness 2, g1
                          abandon liveness 2, g1 abandon connection 1
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 abandon readiness 2, g1
                          abandon liveness 2, g1 abandon connection 1, cut g1, g1 sweep KILL
        restart           -> starting: route hold, g1 abandon readiness 2, g1 abandon liveness 2, g1 abandon
                          connection 1, g1 TERM to group
        reload            tell reloading, g2 prepare
        reloadRefused     tell reloading, tell ready
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle, g1 abandon readiness 2, g1 abandon liveness 2, g1 abandon
                          connection 1
        [refusing]
        exited            -> backoff: g1 abandon readiness 2, g1 abandon liveness 2, g1 sweep KILL
        saysReady         g1 abandon readiness 2
        triggersWatchdog  -> backoff: g1 abandon readiness 2, g1 abandon liveness 2, g1 ABRT to leader
        stop              -> draining: route last call g1, tell stopping, extend 9s, g1 abandon readiness 2, g1
                          abandon liveness 2
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 abandon readiness 2, g1
                          abandon liveness 2, cut g1, g1 sweep KILL
        restart           -> starting: g1 abandon readiness 2, g1 abandon liveness 2, g1 TERM to group
        reload            tell reloading, g2 prepare
        reloadRefused     tell reloading, tell ready
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle, g1 abandon readiness 2, g1 abandon liveness 2
        [unready]
        exited            -> backoff: g1 abandon readiness 5, g1 sweep KILL
        readinessPassed   -> ready: route g1
        saysReady         -> ready: route g1, g1 abandon readiness 5
        triggersWatchdog  -> backoff: g1 abandon readiness 5, g1 ABRT to leader
        stop              -> draining: route last call g1, tell stopping, extend 9s, g1 abandon readiness 5
        killNow           -> stopping: route refuse stopping 1s, tell stopping, extend 9s, g1 abandon readiness 5, cut
                          g1, g1 sweep KILL
        restart           -> starting: g1 abandon readiness 5, g1 TERM to group
        reload            tell reloading, g2 prepare
        reloadRefused     tell reloading, tell ready
        pass              g1 USR1 to leader
        suspend           g1 STOP to group, suspend self
        resume            g1 CONT to group, drop idle, g1 abandon readiness 5
        """
}
