//  Rule.swift
//  Why the machine did a step: the rule, its setting and its value.
//  `why`, the log and the documents render it; no decision is without one.

/// The reason of one decision.
public enum Rule: Hashable, Sendable {
    case firstStart
    case firstFailureAfterReady(Duration)
    case backoff(failures: Int, delay: Duration)
    case cleanEnd(delay: Duration)
    case successorStarts
    case limitExceeded(Int)
    case permanentExitCode(Int32)
    case commandUnusable(String)
    case noProcess(String)
    case policyNever
    case cleanEndOnFailure
    case stopRequested(by: String)
    case secondInterrupt
    case restartRequested
    case reloadRequested
    case reloadFailed(String)
    case becameReady
    case readinessFailed(String)
    case connectionRefused(String)
    case livenessFailed(String, Int)
    case watchdogMissed(Duration?)
    case startupDeadlinePassed(Duration, String?)
    case leaderGone
    case delayOver(Duration)
    case drained
    case onlyStreamsLeft
    case drainOver(Duration)
    case graceOver(Duration)
    case treeEmpty
    case unkillable
    case clockGap(Duration)

    /// The setting whose value decided, or nil.
    public var setting: String? {
        switch self {
        case .backoff, .cleanEnd: "restart.delay"
        case .limitExceeded: "restart.limit"
        case .permanentExitCode: "restart.permanentExitCodes"
        case .policyNever, .cleanEndOnFailure: "restart.policy"
        case .commandUnusable: "worker.command"
        case .readinessFailed: "probe.readiness"
        case .livenessFailed: "probe.liveness"
        case .watchdogMissed: "worker.watchdog"
        case .startupDeadlinePassed: "probe.startup.deadline"
        case .delayOver: "stop.delay"
        case .drainOver: "stop.drain"
        case .graceOver: "stop.grace"
        case .firstStart, .firstFailureAfterReady, .successorStarts, .noProcess, .stopRequested, .secondInterrupt,
            .restartRequested, .reloadRequested, .reloadFailed, .becameReady, .connectionRefused, .leaderGone, .drained,
            .onlyStreamsLeft, .treeEmpty, .unkillable, .clockGap:
            nil
        }
    }

    /// The rule as the end of a sentence: `... because the 3rd failure in a row waits 1s (restart.delay)`.
    public var text: String {
        let words: String =
            switch self {
            case .firstStart: "panelind has started"
            case .firstFailureAfterReady(let ready):
                "it is the first failure after \(ready.text) of readiness, which waits nothing"
            case .backoff(let failures, let delay): "failure \(failures) in a row waits \(delay.text)"
            case .cleanEnd(let delay): "a clean end is no failure and is followed by a start in \(delay.text)"
            case .successorStarts: "its successor of a reload starts already"
            case .limitExceeded(let limit): "more than \(limit) failures in a row"
            case .permanentExitCode(let code): "exit code \(code) before readiness is permanent: a restart cannot help"
            case .commandUnusable(let why): why
            case .noProcess(let why): why
            case .policyNever: "the policy is never to restart"
            case .cleanEndOnFailure: "the policy restarts failures only, and this end was clean"
            case .stopRequested(let by): "\(by) asked for a stop"
            case .secondInterrupt: "a second interrupt asks for an end at once"
            case .restartRequested: "a restart was asked for"
            case .reloadRequested: "a reload was asked for"
            case .reloadFailed(let why): "the reload failed: \(why)"
            case .becameReady: "the worker is ready"
            case .readinessFailed(let why): "the readiness probe fails: \(why)"
            case .connectionRefused(let why): "the worker's address takes no connection: \(why)"
            case .livenessFailed(let why, let times): "the liveness probe failed \(times) times: \(why)"
            case .watchdogMissed(let interval?): "no WATCHDOG=1 came for \(interval.text)"
            case .watchdogMissed(nil): "it said WATCHDOG=trigger"
            case .startupDeadlinePassed(let deadline, let last):
                "it was not ready within \(deadline.text)" + (last.map { ": \($0)" } ?? "")
            case .leaderGone: "the worker's first process is gone"
            case .delayOver(let delay): "the delay of \(delay.text) is over"
            case .drained: "no request is in flight"
            case .onlyStreamsLeft: "only streams are left, which the worker ends itself"
            case .drainOver(let drain): "the drain of \(drain.text) is over"
            case .graceOver(let grace): "the grace of \(grace.text) is over"
            case .treeEmpty: "no process of the worker is left"
            case .unkillable: "what is left cannot be killed"
            case .clockGap(let gap): "the clock made a gap of \(gap.text)"
            }
        return setting.map { "\(words) (\($0))" } ?? words
    }
}
