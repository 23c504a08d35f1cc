//  Transcript.swift
//  One step, one line: the same rendering for the debug log, `why`, the simulation and the golden transcripts.
//  Read after Supervisor.swift.

/// What one event changed, and why.
public struct Step: Hashable, Sendable {
    public var at: Instant
    public var event: Event
    public var from: State
    public var to: State
    public var rules: [Rule]
    public var actions: [Action]

    /// `+12.034s  g3 exited SIGSEGV  ready -> backoff  because ...`
    /// - Parameter start: what the time is counted from.
    public func line(since start: Instant) -> String {
        let change = from == to ? "\(from)" : "\(from) -> \(to)"
        let why = rules.isEmpty ? "" : "  because " + rules.map(\.text).joined(separator: "; ")
        return "+\(Self.time(at - start))  \(event.text)  \(change)\(why)"
    }

    /// Seconds with three decimals.
    private static func time(_ duration: Duration) -> String {
        let ms = duration.nanoseconds / 1_000_000
        return "\(ms / 1000)." + "\(ms % 1000 + 1000)".dropFirst() + "s"
    }
}

extension Event {
    /// A few words, as the transcript writes it.
    public var text: String {
        switch self {
        case .worker(let generation, let news): "\(generation) \(news.text)"
        case .front(.refused(let generation)): "\(generation) refused a connection"
        case .front(.drained(let generation)): "\(generation) drained"
        case .front(.onlyStreamsLeft(let generation)): "\(generation) only streams left"
        case .operator(let wish): wish.text
        case .time: "deadline"
        case .flushed: "flushed"
        case .serviceBusy: "systemd is busy"
        }
    }
}

extension WorkerEvent {
    var text: String {
        switch self {
        case .prepared: "prepared"
        case .prepareFailed(let failure): "not prepared: \(failure.message)"
        case .spawned(let pid): "spawned as pid \(pid)"
        case .spawnFailed(let failure): "not spawned: \(failure.message)"
        case .exited(let status, _, let oom): "exited \(status)" + (oom ? ", out of memory" : "")
        case .orphansReaped: "orphans reaped"
        case .swept(let left, let killed): "swept, \(left.count) left, \(killed.count) killed"
        case .answered(let kind, let attempt, .passed): "\(kind) \(attempt) passed"
        case .answered(let kind, let attempt, .failed(let reason)): "\(kind) \(attempt) failed: \(reason)"
        case .notified(let notification): "notified \(notification)"
        case .logMatched: "log matched"
        case .descriptor(let ready): ready ? "descriptor ready" : "descriptor closed"
        }
    }
}

extension OperatorEvent {
    var text: String {
        switch self {
        case .start: "start"
        case .stop(let by): "stop by \(by)"
        case .killNow: "kill now"
        case .restart: "restart"
        case .reload(let settings): "reload to revision \(settings.revision)"
        case .reloadRefused: "reload refused"
        case .pass(let signal): "pass \(signal)"
        case .suspend: "suspend"
        case .resume: "resume"
        }
    }
}

extension Supervisor {
    /// What the sentence below depends on: another sentence only where one of these is another.
    struct Telling: Hashable, Sendable {
        var state: State
        var pause: Pause
        var generation: Generation
        var reloading: Generation?
        var trouble: String?
    }

    @inline(__always)
    var telling: Telling {
        // Not the newest, which may be on trial still.
        Telling(
            state: state, pause: pause, generation: current?.generation ?? newest, reloading: reloading,
            trouble: trouble)
    }

    /// One sentence for `systemctl status` and `panelind status`.
    func statusSentence(at now: Instant) -> String {
        let g = telling.generation
        let because = trouble.map { ": \($0)" } ?? ""
        let before = trouble.map { "; before: \($0)" } ?? ""
        switch state {
        case .starting: return "worker \(g) is starting" + before
        case .ready:
            if let other = reloading, other != g { return "worker \(g) is ready; worker \(other) is to take over" }
            return "worker \(g) is ready" + because
        case .unready: return "worker \(g) runs but is not ready" + because
        case .backoff:
            if case .backoff(let until) = pause, until > now {
                return "the next start is in \((until - now).text)" + because
            }
            return "worker \(g) is being replaced" + because
        case .draining: return "worker \(g) finishes its requests"
        case .stopping: return "worker \(g) is stopping" + before
        case .failed: return "gave up" + because
        // Where systemd's patience ended before ours, this is what `systemctl status` keeps.
        case .stopped: return "stopped" + before
        }
    }

    /// Keeps what went wrong for the sentence above, until a worker is ready.
    mutating func note(_ rules: [Rule]) {
        for rule in rules {
            switch rule {
            case .becameReady, .restartRequested, .reloadRequested: trouble = nil
            case .readinessFailed, .livenessFailed, .watchdogMissed, .startupDeadlinePassed, .reloadFailed:
                trouble = rule.text
            case .limitExceeded, .permanentExitCode, .commandUnusable, .noProcess:
                trouble = [rule.text, trouble].compactMap { $0 }.joined(separator: "; ")
            default: break  // The others are no trouble.
            }
        }
    }
}
