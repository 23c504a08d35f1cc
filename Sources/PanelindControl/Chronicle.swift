//  Chronicle.swift
//  What the machine did and by which rule, taken from its steps: the memory behind `why`. Bounded; equal ends in a
//  row are one entry with a count. Sentences.swift makes words of it. Read PanelindCore/Transcript.swift first.

import PanelindCore

/// One thing that happened or was decided.
struct Moment: Hashable, Sendable {
    /// What.
    enum What: Hashable, Sendable {
        /// panelind itself.
        case began
        case started(pid: Int32)
        case ready(after: Duration)
        /// `isRefused`: its address takes no connection; else its readiness fails.
        case unready(String, isRefused: Bool)
        /// `rule` says what follows; `restartIn` when.
        case exited(Ending, restartIn: Duration?, rule: Rule?)
        case gaveUp(Rule)
        case probeFailed(ProbeKind, String, beforeReady: Bool)
        /// Somebody asked for something, or a probe, a watchdog, a deadline made panelind act.
        case decided(Rule)
        case survivorsKilled([Survivor])
        case survivorsLeft([Survivor])
        case reloadBegan
        case reloadEnded(failure: String?)
        /// The configuration was read and refused.
        case rejected([String])
        case stopped(code: Int32)
    }

    var what: What
    /// When it happened, the last time where it happened more than once; CLOCK_MONOTONIC.
    var at: Instant
    /// The same by the wall, in nanoseconds since 1970.
    var wall: Int64
    var generation: Int?
    /// How often in a row, and since when.
    var count = 1
    var firstWall: Int64
    var firstGeneration: Int?

    init(_ what: What, at: Instant, wall: Int64, generation: Int?) {
        self.what = what
        self.at = at
        self.wall = wall
        self.generation = generation
        firstWall = wall
        firstGeneration = generation
    }
}

/// The last moments, oldest first; on the main thread only.
public struct Chronicle {
    /// How many are kept.
    static let capacity = 256

    private(set) var moments: [Moment] = []
    /// What the output thread found out about a worker's end: the refined cause and the last lines.
    private(set) var lastWords: (generation: Int, cause: String, lines: [String])?

    /// Makes an empty chronicle.
    public init() {}

    /// Takes what a step did and why. `wall` is the time of the step in nanoseconds since 1970.
    public mutating func take(_ step: Step, wall: Int64) {
        if step.rules.isEmpty, !step.actions.contains(where: \.isReport) { return }
        let subject = step.subject
        var verdict: Rule?
        for rule in step.rules {
            if rule == .firstStart { add(.began, step.at, wall, nil) }
            if rule.isVerdict { verdict = rule }
            if rule.isWorthTelling { add(.decided(rule), step.at, wall, subject) }
        }
        for case .report(let report) in step.actions { take(report, verdict, step.at, wall) }
    }

    /// The configuration was refused.
    public mutating func rejected(_ errors: [String], at now: Instant, wall: Int64) {
        add(.rejected(errors), now, wall, nil)
    }

    /// The output thread has read a dead worker's last lines.
    public mutating func exitRecorded(generation: Int, cause: String, lines: [String]) {
        lastWords = (generation, cause, lines)
        guard let refined = ExitCause(rawValue: cause) else { return }
        for index in moments.indices.reversed() {
            guard case .exited(var ending, let delay, let rule) = moments[index].what else { continue }
            guard moments[index].generation == generation else { continue }
            ending.cause = refined
            moments[index].what = .exited(ending, restartIn: delay, rule: rule)
            return merge(at: index)
        }
    }

    private mutating func take(_ report: Report, _ verdict: Rule?, _ at: Instant, _ wall: Int64) {
        switch report {
        case .workerStarted(let g, let pid): add(.started(pid: pid), at, wall, g.number)
        case .workerReady(let g, let after): add(.ready(after: after), at, wall, g.number)
        case .workerUnready(let g, let reason):
            add(.unready(reason, isRefused: verdict == .connectionRefused(reason)), at, wall, g.number)
        case .workerExited(let g, let ending, let restartIn):
            add(.exited(ending, restartIn: restartIn, rule: ending.requested ? nil : verdict), at, wall, g.number)
            merge(at: moments.count - 1)
        case .workerFailed(let g, let rule): add(.gaveUp(rule), at, wall, g.number)
        case .survivorsKilled(let g, let survivors): add(.survivorsKilled(survivors), at, wall, g.number)
        case .survivorsLeft(let g, let survivors): add(.survivorsLeft(survivors), at, wall, g.number)
        case .probeFailed(let g, let kind, let reason, _, let beforeReady):
            addFailure(.probeFailed(kind, reason, beforeReady: beforeReady), kind, at, wall, g.number)
        case .reloadBegin(let g): add(.reloadBegan, at, wall, g.number)
        case .reloadEnd(let g, let failure): add(.reloadEnded(failure: failure), at, wall, g.number)
        case .panelindStopped(let code): add(.stopped(code: code), at, wall, nil)
        case .workerBackoff, .drainBegin, .drainEnd, .clockGap: break  // Said by the end, or by the rule.
        }
    }

    private mutating func add(_ what: Moment.What, _ at: Instant, _ wall: Int64, _ generation: Int?) {
        if moments.count == Self.capacity { moments.removeFirst(Self.capacity / 4) }
        moments.append(Moment(what, at: at, wall: wall, generation: generation))
    }

    /// A probe that keeps failing is one moment, whatever other probes say between.
    private mutating func addFailure(
        _ what: Moment.What, _ kind: ProbeKind, _ at: Instant, _ wall: Int64, _ generation: Int
    ) {
        for index in moments.indices.suffix(3).reversed() {
            guard case .probeFailed(kind, _, _) = moments[index].what, moments[index].generation == generation else {
                continue
            }
            // Behind what has happened meanwhile: the chronicle is in the order of time.
            var moment = moments.remove(at: index)
            moment.what = what
            moment.at = at
            moment.wall = wall
            moment.count += 1
            // What was decided on it comes behind it.
            let later = moments.lastIndex { $0.at < at }.map { $0 + 1 } ?? 0
            return moments.insert(moment, at: later)
        }
        add(what, at, wall, generation)
    }

    /// An end like the one before it, with no more than a start between, becomes one moment with it.
    private mutating func merge(at index: Int) {
        guard index > 0, case .exited(let ending, _, _) = moments[index].what, !ending.requested else { return }
        var before = index - 1
        while before >= 0, moments[before].isPartOfAFailedStart { before -= 1 }
        guard before >= 0, case .exited(let earlier, _, _) = moments[before].what, earlier.isLike(ending) else {
            return
        }
        moments[index].count += moments[before].count
        moments[index].firstWall = moments[before].firstWall
        moments[index].firstGeneration = moments[before].firstGeneration
        moments.removeSubrange(before..<index)
    }
}

extension Moment {
    /// Not worth keeping between two equal ends.
    fileprivate var isPartOfAFailedStart: Bool {
        switch what {
        case .started, .probeFailed(_, _, beforeReady: true), .survivorsKilled: true
        case .decided(let rule):
            switch rule {
            case .startupDeadlinePassed, .graceOver: true
            default: false
            }
        default: false
        }
    }
}

extension Ending {
    /// The same misfortune again: same cause, same status, at the same stage of life.
    fileprivate func isLike(_ other: Ending) -> Bool {
        cause == other.cause && status == other.status && failure == other.failure && wasReady == other.wasReady
            && !other.requested && !wasReady
    }
}

extension Action {
    fileprivate var isReport: Bool {
        if case .report = self { return true }
        return false
    }
}

extension Step {
    /// The worker that a step is about: of its event, else of its first action.
    var subject: Int? {
        if case .worker(let generation, _) = event { return generation.number }
        for case .worker(let generation, _) in actions { return generation.number }
        return nil
    }
}

extension Rule {
    /// It says what follows an end, or why a worker is unready.
    fileprivate var isVerdict: Bool {
        switch self {
        case .connectionRefused, .firstFailureAfterReady, .successorStarts, .backoff, .cleanEnd, .limitExceeded,
            .permanentExitCode, .commandUnusable, .noProcess, .policyNever, .cleanEndOnFailure:
            true
        default: false
        }
    }

    /// It is a moment of its own, not the reason of a report in the same step.
    fileprivate var isWorthTelling: Bool {
        switch self {
        case .stopRequested, .secondInterrupt, .restartRequested, .livenessFailed, .watchdogMissed,
            .startupDeadlinePassed, .graceOver, .drainOver, .drained, .onlyStreamsLeft, .unkillable, .clockGap:
            true
        default: false
        }
    }
}
