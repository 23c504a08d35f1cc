//  Checker.swift
//  Judges every step by the laws. It sees events, actions, the machine's deadline and what is true in the kernel.
//  It knows nothing of how the machine decides. Actions are judged in Checker+Actions.swift. Read Law.swift first.

import PanelindCore

/// The judge of one simulated world.
public final class Checker {
    /// What was seen of one generation.
    struct Record {
        var revision = 0
        var isSpawnAsked = false
        var isSpawned = false
        var exitHandled = false
        var isForgotten = false
        /// A stop signal, or KILL, was sent.
        var isSignalled = false
        var isDrainAsked = false
        var isCut = false
        var isLeftBehind = false
        /// It was told to leave.
        var isLeaving = false
        /// Its successor took over while it lived.
        var isPredecessor = false
        /// It was reported ready, and not unready since.
        var saysReady = false
        var hasBeenReady = false
        /// Something said so: a probe, a notification, a second of life.
        var hasEvidence = false
        /// It refused a connection, and has taken none since.
        var isDoubted = false
        var notified = false
        var exitReports = 0
        var killedAt: Instant?
        /// The step in which KILL was last sent to the whole tree: it is not performed yet while that is judged.
        var killedInStep = -1
        /// The attempt under way of each probe, zero for none.
        var asking = SIMD4<Int32>()
        var attempts = SIMD4<Int32>()
        var killedSeen: [Int32] = []
        var killedReported: [Int32] = []
    }

    /// The first law that was broken.
    public private(set) var violation: Violation?
    /// So many steps at one instant are a livelock.
    static let stepsAtOneInstant = 10_000
    /// What KILL and its consequences may take, and a worker that is not to be killed.
    static let killingLasts: Duration = .seconds(11)
    /// After a thaw within a stop: KILL, reap, flush.
    static let thawSlack: Duration = .milliseconds(500)

    var records: [Record] = []
    var configurations: [Int: SupervisorSettings]
    /// In force for the current worker.
    var settings: SupervisorSettings
    var reloads: [Generation: Bool] = [:]
    var offered: SupervisorSettings?
    var hasStarted = false
    var spawnedOnce = false
    var stopAt: Instant?
    var stopBudget: Duration = .zero
    var policyCode: Int32?
    var thawedAt = Instant.zero
    var snapshot: HealthSnapshot?
    /// Published in this step as the newest.
    var replaces: Generation?
    var route = Route.hold
    /// Who served when the stop began, and until when it goes on with that.
    var draining: (worker: Generation, until: Instant)?
    var notBefore: Instant?
    var failures = 0
    var unplanned = 0
    /// Somebody asked for the next worker: whatever ends the present one, it is no unplanned replacement.
    var nextIsWanted = false
    var lastDeadline: Instant?
    var lastAt = Instant.zero
    var stepsNow = 0
    var steps = 0
    /// What panelind exited with, if it has.
    public internal(set) var exitCode: Int32?

    /// Makes a checker of a machine that starts with these settings.
    public init(_ settings: SupervisorSettings) {
        self.settings = settings
        configurations = [settings.revision: settings]
    }

    /// Nobody ran until now.
    public func thawed(at now: Instant) { thawedAt = now }

    /// Judges one step, before its actions are performed.
    /// - Parameters:
    ///   - deadline: the machine's, after the step.
    ///   - kernel: what is true while the step is decided.
    public func decided(_ step: Step, deadline: Instant?, kernel: Kernel) {
        guard violation == nil, exitCode == nil else { return }
        let wasDue = lastDeadline.map { $0 <= step.at } ?? false
        let isGap = step.event == .time && lastDeadline.map { step.at - $0 > .seconds(1) } ?? false
        stepsNow = step.at == lastAt ? stepsNow + 1 : 0
        steps += 1
        lastAt = step.at
        lastDeadline = deadline
        require(stepsNow < Self.stepsAtOneInstant, .progress, at: step.at, "\(stepsNow) steps at this instant")
        note(step, wasDue: wasDue)
        judgeRules(step, isGap: isGap)
        judgeActions(step, kernel)
        judgeStanding(step, deadline, kernel)
    }

    func require(_ holds: Bool, _ law: Law, at now: Instant, _ details: @autoclosure () -> String) {
        guard !holds, violation == nil else { return }
        violation = Violation(law: law, at: now, details: details())
    }

    /// Reports what only the world can see.
    func broke(_ law: Law, at now: Instant, _ details: String) {
        require(false, law, at: now, details)
    }

    func index(_ generation: Generation) -> Int? {
        records.indices.contains(generation.number - 1) ? generation.number - 1 : nil
    }

    /// Whether a step did nothing at all.
    private func isEmpty(_ step: Step) -> Bool { step.actions.isEmpty && step.from == step.to }

    /// Takes in what the event says.
    private func note(_ step: Step, wasDue: Bool) {
        switch step.event {
        case .worker(let generation, let news):
            guard let i = index(generation) else { return }
            if records[i].isForgotten {
                require(
                    wasDue || isEmpty(step), .goneIsSilent, at: step.at,
                    "\(step.event.text) led to \(step.actions.count) actions")
                return
            }
            note(news, of: i, step, wasDue: wasDue)
        case .operator(.start): hasStarted = true
        case .operator(.stop), .operator(.killNow):
            guard stopAt == nil else { return }
            stopAt = step.at
            stopBudget = settings.stop.budget
            beginDrain(at: step.at)
        case .operator(.reload(let new)):
            configurations[new.revision] = new
            let isRefused = step.actions.contains { if case .report(.reloadEnd(_, .some)) = $0 { true } else { false } }
            if !isRefused { offered = new }
        case .front(.refused(let generation)):
            if let i = index(generation), records[i].saysReady { records[i].isDoubted = true }
        case .operator, .front, .time, .flushed, .serviceBusy: break
        }
    }

    private func note(_ news: WorkerEvent, of i: Int, _ step: Step, wasDue: Bool) {
        switch news {
        case .spawned:
            records[i].isSpawned = true
            spawnedOnce = true
            if case .alive = configurations[records[i].revision]?.worker.impliedReadiness {
                if judge(of: i) == .life { records[i].hasEvidence = true }
            }
        case .spawnFailed, .prepareFailed: break
        case .exited:
            records[i].exitHandled = true
            records[i].saysReady = false
        case .swept(_, let killed):
            records[i].killedSeen.append(contentsOf: killed.map(\.pid))
        case .answered(let kind, let attempt, let outcome):
            let k = Self.number(kind)
            guard records[i].asking[k] == Int32(attempt), attempt > 0 else {
                require(
                    wasDue || isEmpty(step), .lateAnswer, at: step.at,
                    "\(step.event.text) led to \(step.actions.count) actions")
                return
            }
            records[i].asking[k] = 0
            if kind == .connection, outcome == .passed { records[i].isDoubted = false }
            if kind == .readiness, outcome == .passed, judge(of: i) == .answers { records[i].hasEvidence = true }
        case .notified(.ready):
            records[i].notified = true
            if judge(of: i) == .words { records[i].hasEvidence = true }
        case .notified(.reloading), .notified(.stopping):
            if judge(of: i) == .words { records[i].hasEvidence = false }
        case .logMatched, .descriptor(ready: true):
            if judge(of: i) == .signs { records[i].hasEvidence = true }
        case .prepared, .orphansReaped, .notified, .descriptor: break
        }
    }

    /// Who decides on a worker's readiness (CONTRACT section 4).
    enum Judge { case answers, words, signs, life }

    func judge(of i: Int) -> Judge {
        guard let worker = configurations[records[i].revision]?.worker else { return .life }
        switch worker.readiness?.method {
        case .http, .tcp, .exec: return .answers
        case .notify: return .words
        case .log, .descriptor: return .signs
        case nil: break
        }
        if records[i].notified { return .words }
        if case .alive = worker.impliedReadiness { return .life }
        return .answers
    }

    static func number(_ kind: ProbeKind) -> Int {
        switch kind {
        case .startup: 0
        case .readiness: 1
        case .liveness: 2
        case .connection: 3
        }
    }

    /// What the policy decided, by the rules of the step.
    private func judgeRules(_ step: Step, isGap: Bool) {
        for case .report(.workerExited(let generation, let ending, let delay)) in step.actions where !ending.requested {
            // One that had handed over is nobody's failure.
            if let i = index(generation), records[i].isPredecessor { continue }
            if ending.readyFor >= settings.restart.resetAfter { failures = 0 }
            failures += 1
            if delay != nil, !nextIsWanted { unplanned += 1 }
        }
        let gap =
            isGap || (step.event == .time && step.rules.contains { if case .clockGap = $0 { true } else { false } })
        for rule in step.rules {
            switch rule {
            case .watchdogMissed, .startupDeadlinePassed, .livenessFailed:
                require(!gap, .clockGap, at: step.at, rule.text)
            case .restartRequested:
                failures = 0
                notBefore = nil
                unplanned = 0
                nextIsWanted = true
            case .backoff(let n, let delay):
                require(n <= failures, .failures, at: step.at, "failure \(n) in a row is counted after \(failures)")
                judgeDelay(n, delay, step)
            case .limitExceeded(let limit):
                require(
                    failures > limit, .failures, at: step.at, "it gave up after \(failures) failures, limit \(limit)")
                decideCode(70, holds: true)
            case .permanentExitCode: decideCode(70, holds: true)
            case .commandUnusable:
                if spawnedOnce { decideCode(70, holds: true) } else { decideCode(unusableCode(step), holds: false) }
            case .noProcess: decideCode(71, holds: false)
            case .policyNever: decideCode(workersCode(step) ?? 70, holds: false)
            case .cleanEndOnFailure: decideCode(workersCode(step) ?? 0, holds: false)
            default: break
            }
        }
    }

    private func decideCode(_ code: Int32, holds: Bool) {
        guard stopAt == nil, !(holds && settings.restart.onGiveUp == .hold) else { return }
        policyCode = code
    }

    private func workersCode(_ step: Step) -> Int32? {
        for case .report(.workerExited(_, let ending, _)) in step.actions { return ending.status?.shellCode }
        return nil
    }

    private func unusableCode(_ step: Step) -> Int32 {
        for case .report(.workerExited(_, let ending, _)) in step.actions where ending.failure?.kind == .notExecutable {
            return 126
        }
        return 127
    }

    /// min(delay * factor^(n-1), maxDelay) +- jitter (CONTRACT section 2).
    private func judgeDelay(_ n: Int, _ delay: Duration, _ step: Step) {
        var restart = settings.restart
        for case .report(.workerExited(let generation, _, _)) in step.actions {
            guard let i = index(generation), let its = configurations[records[i].revision] else { continue }
            restart = its.restart
        }
        var base = restart.delay.seconds
        var i = 1
        while i < n, base < restart.maxDelay.seconds, restart.factor > 1 {
            base *= restart.factor
            i += 1
        }
        base = min(base, restart.maxDelay.seconds)
        // The shortest wait lets the loop turn.
        if delay == .milliseconds(1), base * (1 - restart.jitter) <= 0.001 { return }
        require(
            abs(delay.seconds - base) <= base * restart.jitter + 1e-6, .backoff, at: step.at,
            "failure \(n) waits \(delay.text) where \(base)s was due")
    }
}
