//  Children+Sweep.swift
//  Signals to a leader or its group, and passes over a worker's whole tree until nothing of it lives.
//  After a reap nothing is signalled by a bare number (DESIGN section 3). Read after Children+Owners.swift.

import CPanelindSystem
import Glibc
import PanelindCore

extension Children {
    /// Looks of one pass with KILL, or of one that finds nobody: each finds what was forked during the one before.
    private static let rounds = 8
    /// Quick strikes after each look, some twenty microseconds each.
    private static let strikes = 32
    /// Names that are read during strikes: reading one takes as long as a fork.
    private static let namedStrikes = 16

    /// Sends a signal to a worker's leader, or to its group.
    ///
    /// A worker that shares our group gets it process by process, we do not. A main process outside the leader's
    /// group gets it with its own group.
    /// - Returns: whether anybody was sent it.
    @discardableResult
    public func signal(_ generation: Generation, _ signal: Signal, target: SignalTarget) -> Bool {
        guard let record = records[generation] else { return false }
        switch target {
        case .leader:
            if let main = record.main, !record.hasEnded { return send(signal, to: main) }
            guard !record.leaderIsReaped else { return false }
            if record.pidfd >= 0, panelind_pidfd_signal(record.pidfd, signal.number) == 0 { return true }
            // Not reaped: the number is still its.
            return kill(record.leader, signal.number) == 0
        case .group:
            guard record.leadsGroup else { return !sweep(generation, signal: signal).signalled.isEmpty }
            var sent = signalGroup(record, signal)
            if let main = record.main, !record.hasEnded, let entry = ProcessEntry(pid: main.pid),
                entry.start == main.start, entry.isAlive, entry.group != record.leader
            {
                // It leads the group, or else somebody else's processes may be in it.
                sent =
                    (entry.group == main.pid && kill(-main.pid, signal.number) == 0 || send(signal, to: main)) || sent
            }
            return sent
        }
    }

    private func signalGroup(_ record: Record, _ signal: Signal) -> Bool {
        if !record.leaderIsReaped { return kill(-record.leader, signal.number) == 0 }
        guard record.groups.contains(record.leader) else { return false }
        // A member that we knew before the reap still lives: then the number is still that group's.
        for (pid, process) in known {
            guard let entry = ProcessEntry(pid: pid), entry.start == process.start, entry.group == record.leader
            else { continue }
            return kill(-record.leader, signal.number) == 0
        }
        return false
    }

    /// One pass over all living processes of a generation, its leader and those that left its group included.
    ///
    /// With nothing left this costs one system call where orphans are adopted and nothing else runs. A pass with KILL
    /// looks again until it finds nobody new, so that a forking tree cannot outrun it. Exec probes are never touched.
    /// - Parameters:
    ///   - signal: sent to each; nil only looks.
    ///   - skippingGroup: spares members of the leader's group, which had the signal already.
    public func sweep(_ generation: Generation, signal: Signal?, skippingGroup: Bool = false) -> SweepPass {
        guard let record = records[generation], !isProvenEmpty(generation) else { return SweepPass() }
        guard features.processTable else { return sweepWithoutTable(record, signal) }
        var commands: [ProcessIdentity: String] = [:]
        var signalled: [ProcessIdentity: Survivor] = [:]
        var forbidden: Set<ProcessIdentity> = []
        var rounds = Self.rounds
        func survivor(_ entry: ProcessEntry) -> Survivor {
            Survivor(
                pid: entry.pid, command: commands[entry.identity] ?? "?", uninterruptible: entry.isUninterruptible)
        }
        while true {
            let look = look()
            let owned = (look.owned[generation] ?? []).sorted { $0.pid < $1.pid }
            for entry in owned where commands[entry.identity] == nil {
                commands[entry.identity] = ProcessTable.command(of: entry.pid)
            }
            let new = owned.filter { entry in
                signalled[entry.identity] == nil && !forbidden.contains(entry.identity)
                    && !(skippingGroup && isInLeadersGroup(entry, record))
            }
            if let signal, !new.isEmpty {
                if signal == .kill { killGroups(of: new, sparing: look.mixedGroups) }
                for entry in new {
                    if send(signal, to: entry.identity) {
                        signalled[entry.identity] = survivor(entry)
                    } else if isForbidden(entry.pid) {
                        forbidden.insert(entry.identity)
                    } else if signal == .kill {
                        // Its group's KILL was faster.
                        signalled[entry.identity] = survivor(entry)
                    }
                }
            }
            rounds -= 1
            let killed = signal == .kill
            if killed { strike(generation, &signalled) }
            if killed || owned.isEmpty {
                // A look at all of /proc takes longer than some processes live: that it saw none is no proof.
                if isProvenEmpty(generation) { return SweepPass(signalled: Self.sorted(signalled)) }
                // Without a list of our children there will be none: a second look must do.
                if owned.isEmpty, rounds > (adoptsOrphans && features.childrenFiles ? 0 : Self.rounds - 2) { continue }
                if killed, !new.isEmpty, rounds > 0 { continue }
            }
            let left = owned.isEmpty ? adopted(generation) : owned.map(survivor)
            return SweepPass(left: left, signalled: Self.sorted(signalled))
        }
    }

    /// Those of our children that nobody started here and that no look could catch.
    private func adopted(_ generation: Generation) -> [Survivor] {
        guard adoptsOrphans, features.childrenFiles else { return [] }
        return (ProcessTable.ownChildren() ?? []).compactMap { pid in
            guard roles[pid] == nil, let entry = ProcessEntry(pid: pid), entry.isAlive, owner(of: pid) == generation
            else { return nil }
            return Survivor(
                pid: pid, command: ProcessTable.command(of: pid), uninterruptible: entry.isUninterruptible)
        }
    }

    private static func sorted(_ survivors: [ProcessIdentity: Survivor]) -> [Survivor] {
        survivors.values.sorted { $0.pid < $1.pid }
    }

    /// Kills adopted processes as fast as they appear, and reaps them at once.
    ///
    /// A process that forks and exits, again and again, is gone whenever a look at all of /proc gets to it. But each
    /// in turn becomes our own child, the list of those is short, and their numbers are safe until we reap them.
    private func strike(_ generation: Generation, _ signalled: inout [ProcessIdentity: Survivor]) {
        guard adoptsOrphans, features.childrenFiles else { return }
        let alone = records.count == 1 && !roles.values.contains { if case .probe = $0 { true } else { false } }
        let mains = Set(records.values.compactMap { $0.hasEnded ? nil : $0.main?.pid })
        var names = Self.namedStrikes
        for _ in 0..<Self.strikes {
            guard let children = ProcessTable.ownChildren() else { return }
            var living = false
            // The newest is at the end.
            for pid in children.reversed() where roles[pid] == nil {
                if !mains.contains(pid), reapOrphan(pid) { continue }
                guard alone || owner(of: pid) == generation else { continue }
                living = true
                if names > 0, let entry = ProcessEntry(pid: pid), entry.isAlive, signalled[entry.identity] == nil,
                    !isForbidden(pid)
                {
                    names -= 1
                    signalled[entry.identity] = Survivor(
                        pid: pid, command: ProcessTable.command(of: pid), uninterruptible: entry.isUninterruptible)
                }
                kill(pid, SIGKILL)
            }
            if !living { return }
        }
    }

    private func isInLeadersGroup(_ entry: ProcessEntry, _ record: Record) -> Bool {
        if record.leadsGroup, entry.group == record.leader { return true }
        guard let main = record.main else { return false }
        return entry.group == main.pid
    }

    /// Kills whole groups at once, which no fork can outrun; only those that one of our own children is in.
    private func killGroups(of entries: [ProcessEntry], sparing mixed: Set<Int32>) {
        var groups: Set<Int32> = []
        for entry in entries where entry.parent == ownPID && entry.group != ownGroup && entry.group > 1 {
            // Our child cannot vanish before we reap it, so neither can the number of its group.
            groups.insert(entry.group)
        }
        for group in groups.subtracting(mixed) { kill(-group, SIGKILL) }
    }

    /// Sends a signal to this very process and to no other that got its number since.
    @discardableResult
    func send(_ signal: Signal, to identity: ProcessIdentity) -> Bool {
        // A child that we started and did not reap keeps its number.
        if roles[identity.pid] != nil { return kill(identity.pid, signal.number) == 0 }
        if features.pidfd {
            let pidfd = panelind_pidfd_open(identity.pid)
            if pidfd >= 0 {
                defer { close(pidfd) }
                // Compared after opening: from here on the descriptor means one process.
                guard ProcessEntry(pid: identity.pid)?.start == identity.start else { return false }
                return panelind_pidfd_signal(pidfd, signal.number) == 0
            }
            if pidfd == -ESRCH { return false }
        }
        // Without a pidfd a moment remains between look and kill; numbers are used again only after a whole round.
        guard ProcessEntry(pid: identity.pid)?.start == identity.start else { return false }
        return kill(identity.pid, signal.number) == 0
    }

    /// We may not signal it: it became another user, and we have no CAP_KILL (kill(2), EPERM).
    private func isForbidden(_ pid: Int32) -> Bool { kill(pid, 0) < 0 && errno == EPERM }

    /// Where /proc is not ours only the leader and its group can be reached.
    private func sweepWithoutTable(_ record: Record, _ signal: Signal?) -> SweepPass {
        guard !record.leaderIsReaped else { return SweepPass() }
        let survivor = Survivor(pid: record.leader, command: "?")
        guard let signal else { return SweepPass(left: [survivor]) }
        kill(record.leadsGroup ? -record.leader : record.leader, signal.number)
        return SweepPass(left: [survivor], signalled: [survivor])
    }

    /// Kills an exec probe with its group; its end is reported by `reap`. False when it has ended already.
    @discardableResult
    public func killProbe(_ generation: Generation, id: Int) -> Bool {
        guard let pid = roles.first(where: { $0.value == .probe(generation, id: id) })?.key else { return false }
        return kill(-pid, SIGKILL) == 0
    }
}

/// Whether this process has no child at all, dead ones included.
func panelindHasNoChild() -> Bool { panelind_peek() == -ECHILD }
