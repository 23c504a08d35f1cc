//  RestartPolicy.swift
//  What follows a worker's end: a start, at once or after a backoff, giving up, or panelind's own end.
//  Pure: time and randomness come in. Read after Rule.swift.

/// What follows an end that nobody asked for.
public enum RestartDecision: Hashable, Sendable {
    /// Start the next worker so long after the end.
    case restart(after: Duration, Rule)
    /// No start would help. `exitCode` is panelind's where it does not hold.
    case giveUp(Rule, exitCode: Int32, holds: Bool)
    /// The policy wants no further worker: end with this code.
    case finish(exitCode: Int32, Rule)
}

/// The consecutive failures so far, and the jitter to come.
public struct RestartPolicy: Sendable {
    /// A worker that was ready for so long is started again at once after its first failure.
    static let stableAfter: Duration = .seconds(10)

    /// Consecutive failures, as `restart.limit` counts them.
    public private(set) var failures = 0
    private var random: RandomNumbers

    init(seed: UInt64) { random = RandomNumbers(seed: seed) }

    /// A restart or a reload that somebody asked for clears the count.
    mutating func clear() { failures = 0 }

    /// Judges an end that nobody asked for.
    /// - Parameter isFirstStart: no process of any generation ran before.
    mutating func judge(_ ending: Ending, _ settings: RestartSettings, isFirstStart: Bool) -> RestartDecision {
        if ending.readyFor >= settings.resetAfter { failures = 0 }
        let holds = settings.onGiveUp == .hold
        if let failure = ending.failure {
            switch failure.kind {
            case .notFound, .notExecutable:
                // CONTRACT section 3: at the first start whatever `onGiveUp` says.
                let code: Int32 = failure.kind == .notFound ? 127 : 126
                if isFirstStart { return .finish(exitCode: code, .commandUnusable(failure.message)) }
                return .giveUp(.commandUnusable(failure.message), exitCode: 70, holds: holds)
            case .noProcess:
                if isFirstStart { return .finish(exitCode: 71, .noProcess(failure.message)) }
            case .other:
                break
            }
        }
        let isClean = isClean(ending, settings)
        switch settings.policy {
        case .never:
            return .finish(exitCode: ending.status?.shellCode ?? 70, .policyNever)
        case .onFailure:
            if isClean { return .finish(exitCode: ending.status?.shellCode ?? 0, .cleanEndOnFailure) }
        case .always:
            if isClean { return .restart(after: settings.delay, .cleanEnd(delay: settings.delay)) }
        }
        if !ending.wasReady, case .code(let code)? = ending.status, settings.permanentExitCodes.contains(code),
            ending.cause == .exit
        {
            return .giveUp(.permanentExitCode(code), exitCode: 70, holds: holds)
        }
        failures += 1
        if let limit = settings.limit, failures > limit {
            return .giveUp(.limitExceeded(limit), exitCode: 70, holds: holds)
        }
        if failures == 1, ending.readyFor >= Self.stableAfter {
            return .restart(after: .zero, .firstFailureAfterReady(ending.readyFor))
        }
        let delay = backoff(settings, hadProcess: ending.status != nil)
        return .restart(after: delay, .backoff(failures: failures, delay: delay))
    }

    /// A clean end is one after ready with a success code (CONTRACT section 2, "failure").
    private func isClean(_ ending: Ending, _ settings: RestartSettings) -> Bool {
        guard ending.wasReady, ending.cause == .exit, case .code(let code)? = ending.status else { return false }
        return settings.successCodes.contains(code)
    }

    /// min(delay * factor^(n-1), maxDelay) +- jitter.
    private mutating func backoff(_ settings: RestartSettings, hadProcess: Bool) -> Duration {
        var seconds = settings.delay.seconds
        let ceiling = settings.maxDelay.seconds
        for _ in 1..<failures {
            if seconds >= ceiling || seconds == 0 { break }
            seconds *= settings.factor
        }
        seconds = min(seconds, ceiling)
        let spread = (random.fraction() * 2 - 1) * settings.jitter
        // Never quite nothing for a start that failed without a process: it must leave a turn to everything else.
        let least: Duration = hadProcess ? .zero : .milliseconds(1)
        return max(least, .nanoseconds(Int64(seconds * (1 + spread) * 1e9)))
    }
}
