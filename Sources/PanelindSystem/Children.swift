//  Children.swift
//  Every child and whose it is: starts, reaps all, and remembers what a dead leader left behind.
//  Owners are decided in Children+Owners.swift, signals and sweeps in Children+Sweep.swift (DESIGN section 3).

import CPanelindSystem
import Glibc
import PanelindCore

/// What a process that we start is for.
public enum Role: Hashable, Sendable {
    /// The leader of this generation's worker.
    case worker(Generation)
    /// An exec probe's command; always in a process group of its own.
    case probe(Generation, id: Int)
}

/// What became of a child.
public enum ChildEvent: Hashable, Sendable {
    /// The leader ended (or the main process that took its place): nothing of the rest is decided yet.
    case leaderExited(Generation, ExitStatus, ResourceUse)
    /// An exec probe ended by itself or was killed.
    case probeExited(Generation, id: Int, ExitStatus)
    /// So many others, whose parents are gone, were reaped in one go.
    case orphanReaped(Int)
}

/// What one pass over a worker's tree found.
public struct SweepPass: Hashable, Sendable {
    /// Alive at the end of the pass.
    public var left: [Survivor]
    /// Those that were sent the signal in this pass.
    public var signalled: [Survivor]

    /// Makes the record of one pass.
    public init(left: [Survivor] = [], signalled: [Survivor] = []) {
        self.left = left
        self.signalled = signalled
    }
}

/// All children of this process and their owners. Main thread only: a child dies with the thread that started it.
public final class Children {
    /// One generation, until `forget`.
    struct Record {
        /// The process that we started.
        var leader: Int32
        /// -1 where the kernel has none, and after the reap.
        var pidfd: Int32
        var leadsGroup: Bool
        /// Reaped: the number means nobody any more.
        var leaderIsReaped = false
        /// The leader's end was reported.
        var hasEnded = false
        /// The process that said MAINPID, in the leader's place.
        var main: ProcessIdentity?
        /// Groups and sessions of the last look in which a member of ours lived.
        var groups: Set<Int32> = []
        var sessions: Set<Int32> = []
    }

    /// A process that was attributed in an earlier look, under its pid.
    struct Known {
        var start: UInt64
        var generation: Generation
    }

    /// The errno of a refused PR_SET_CHILD_SUBREAPER (prctl(2)); orphans are then found, but not adopted.
    public let subreaperRefused: Int32?
    /// Descendants whose parents died become our children: as PID 1 or as subreaper.
    public let adoptsOrphans: Bool
    /// Everything that was reaped so far, leaders and probes included.
    public internal(set) var reapedTotal = 0

    let token: String
    let features: Features
    let ownPID: Int32
    let ownGroup: Int32
    let ownSession: Int32
    let ownStart: UInt64
    var records: [Generation: Record] = [:]
    /// Processes that we started and did not reap: their numbers cannot be used again.
    var roles: [Int32: Role] = [:]
    var known: [Int32: Known] = [:]
    /// Reaped by a sweep, not yet told.
    private var untoldOrphans = 0

    /// Becomes subreaper unless PID 1 is us already; a refusal is a value, never fatal.
    ///
    /// - Parameters:
    ///   - runToken: of this run of panelind; it tells our workers' environments from those of another panelind.
    ///   - adopting: false leaves the subreaper alone, as if it were refused with EPERM.
    ///   - features: what the kernel can do; tests switch facilities off.
    public init(runToken: String, adopting: Bool = true, features: Features = .current) {
        token = runToken.filter { $0 != ":" }
        self.features = features
        ownPID = getpid()
        ownGroup = getpgrp()
        ownSession = getsid(0)
        ownStart = ProcessEntry(pid: getpid())?.start ?? 0
        if !adopting {
            subreaperRefused = EPERM
        } else if ownPID == 1 {
            subreaperRefused = nil
        } else {
            let result = panelind_become_subreaper()
            subreaperRefused = result < 0 ? -result : nil
        }
        adoptsOrphans = subreaperRefused == nil
    }

    deinit {
        for record in records.values where record.pidfd >= 0 { close(record.pidfd) }
    }

    // MARK: starting

    /// The variable by which a process is recognised when nothing else says whose it is.
    public static let environmentName = "PANELIND_GENERATION"

    /// What `PANELIND_GENERATION` says in a worker's environment: `3:TOKEN`; `spawn` sets it by itself.
    public func environmentValue(for generation: Generation) -> String { "\(generation.number):\(token)" }

    func environmentValue(for role: Role) -> String {
        switch role {
        case .worker(let generation): environmentValue(for: generation)
        case .probe(let generation, let id): "\(environmentValue(for: generation)):\(id)"
        }
    }

    /// Starts a process and returns its pid; the thread waits for its exec, and must live as long as the child.
    ///
    /// `PANELIND_GENERATION` is set or replaced. A failure leaves nothing behind.
    public func spawn(_ request: SpawnRequest, role: Role) -> Result<Int32, SpawnError> {
        var request = request
        request.setEnvironment(Self.environmentName, environmentValue(for: role))
        if case .probe = role { request.newProcessGroup = true }
        switch PanelindSystem.spawn(request, features: features) {
        case .failure(let error): return .failure(error)
        case .success(let child):
            roles[child.pid] = role
            switch role {
            case .worker(let generation):
                precondition(records[generation] == nil, "a generation is started once")
                records[generation] = Record(
                    leader: child.pid, pidfd: child.pidfd, leadsGroup: request.newProcessGroup)
            case .probe:
                // Reaped by role; its number is ours until then, so a pidfd adds nothing.
                if child.pidfd >= 0 { close(child.pidfd) }
            }
            return .success(child.pid)
        }
    }

    /// The process whose end is the worker's: our child, or the one that took its place; nil once it ended.
    public func leaderPID(of generation: Generation) -> Int32? {
        guard let record = records[generation], !record.hasEnded else { return nil }
        return record.main?.pid ?? (record.leaderIsReaped ? nil : record.leader)
    }

    /// The process that stands for the one we started since its MAINPID, also once it has ended.
    public func mainPID(of generation: Generation) -> Int32? { records[generation]?.main?.pid }

    /// Makes a living descendant the leader, as MAINPID asks (sd_notify(3)): its end is the worker's from now on.
    ///
    /// If it ends unseen because its parent reaps it, the process that we started counts again.
    /// - Returns: false for a process that is not this worker's.
    public func adoptMainPID(_ generation: Generation, _ pid: Int32) -> Bool {
        guard var record = records[generation], !record.hasEnded else { return false }
        if pid == record.leader, !record.leaderIsReaped {
            record.main = nil
        } else {
            guard roles[pid] == nil, let entry = ProcessEntry(pid: pid), entry.isAlive, owner(of: pid) == generation
            else { return false }
            record.main = entry.identity
        }
        records[generation] = record
        return true
    }

    /// The leader ended and nothing of the tree lives: looks, sends nothing. True for a generation that is not known.
    public func isGone(_ generation: Generation) -> Bool {
        records[generation] == nil || sweep(generation, signal: nil).left.isEmpty
    }

    /// Drops what is remembered of a generation that is gone; it never owns a process again.
    public func forget(_ generation: Generation) {
        if let record = records.removeValue(forKey: generation) {
            if record.pidfd >= 0 { close(record.pidfd) }
            // A leader that could not be killed (state D) is reaped as an orphan when it ends at last.
            if !record.leaderIsReaped { roles[record.leader] = nil }
        }
        known = known.filter { $0.value.generation != generation }
    }

    // MARK: reaping

    /// Children of one `reap`, so that a tree that dies as fast as it forks cannot hold the loop.
    static let reapBound = 4096

    /// Reaps every dead child and says what became of each; call it at every SIGCHLD, which merges many ends into one.
    ///
    /// A leader's group and tree are recorded before its number becomes free. Zombies of a living worker are its own.
    /// - Returns: true when so many died that others may wait: call again in the next turn.
    @discardableResult
    public func reap(_ body: (ChildEvent) -> Void) -> Bool {
        var orphans = untoldOrphans
        untoldOrphans = 0
        let before = reapedTotal
        while reapedTotal - before < Self.reapBound, case let pid = panelind_peek(), pid > 0 {
            let role = roles[pid]
            switch role {
            case .worker: recordLeftovers()
            // While the zombie holds the number, its group is surely the probe's.
            case .probe: kill(-pid, SIGKILL)
            case nil: break
            }
            var exit = panelind_exit()
            let result = panelind_reap(pid, &exit)
            // Seen dead and not to be reaped: not to be tried for ever.
            if result == -EAGAIN { break }
            // Nobody else waits in this process; if someone did, the child is gone all the same.
            reapedTotal += 1
            roles[pid] = nil
            let status = Self.status(exit)
            switch role {
            case .worker(let generation):
                if leaderWasReaped(generation) {
                    body(.leaderExited(generation, status, Self.use(exit)))
                } else {
                    orphans += 1
                }
            case .probe(let generation, let id): body(.probeExited(generation, id: id, status))
            case nil:
                if let generation = mainWasReaped(pid) {
                    body(.leaderExited(generation, status, Self.use(exit)))
                } else {
                    orphans += 1
                }
            }
            known[pid] = nil
        }
        if orphans > 0 { body(.orphanReaped(orphans)) }
        return reapedTotal - before >= Self.reapBound
    }

    /// waitid(2) answers: a dead child would be seen.
    public var reaperWorks: Bool { Self.reaperError == nil }

    /// Why no child's end would ever be known: what a filter of system calls makes of waitid(2); nil where it works.
    public static var reaperError: SystemError? {
        let answer = panelind_peek()
        return answer >= 0 || answer == -ECHILD ? nil : SystemError(answer)
    }

    /// Reaps this orphan if it is dead; the next `reap` tells of it.
    func reapOrphan(_ pid: Int32) -> Bool {
        var exit = panelind_exit()
        guard panelind_reap(pid, &exit) == 0 else { return false }
        reapedTotal += 1
        untoldOrphans += 1
        known[pid] = nil
        return true
    }

    /// Marks our child as reaped: true when that is the worker's end, false while another main process stands for it.
    private func leaderWasReaped(_ generation: Generation) -> Bool {
        guard var record = records[generation] else { return false }
        if record.pidfd >= 0 { close(record.pidfd) }
        record.pidfd = -1
        record.leaderIsReaped = true
        if let main = record.main {
            // Dead already, but ours to reap: its end, a moment away, is the worker's.
            let entry = ProcessEntry(pid: main.pid)
            let counts = entry.map { $0.start == main.start && ($0.isAlive || $0.parent == ownPID) } ?? false
            if !counts { record.main = nil }
        }
        let ends = record.main == nil && !record.hasEnded
        if ends { record.hasEnded = true }
        records[generation] = record
        return ends
    }

    private func mainWasReaped(_ pid: Int32) -> Generation? {
        for (generation, record) in records where record.main?.pid == pid && !record.hasEnded {
            records[generation]?.hasEnded = true
            return generation
        }
        return nil
    }

    private static func status(_ exit: panelind_exit) -> ExitStatus {
        exit.by_signal != 0
            ? .signal(Signal(number: exit.status), coreDumped: exit.core_dumped != 0) : .code(exit.status)
    }

    private static func use(_ exit: panelind_exit) -> ResourceUse {
        ResourceUse(
            maxRSSBytes: exit.max_rss_kib * 1024, userCPU: .microseconds(exit.user_microseconds),
            systemCPU: .microseconds(exit.system_microseconds))
    }
}
