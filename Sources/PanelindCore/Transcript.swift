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
        case .front(.drained(let generation)): "\(generation) drained"
        case .front(.onlyStreamsLeft(let generation)): "\(generation) only streams left"
        case .operator(let wish): wish.text
        case .time: "deadline"
        case .flushed: "flushed"
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
        case .pass(let signal): "pass \(signal)"
        case .suspend: "suspend"
        case .resume: "resume"
        }
    }
}

extension Supervisor {
    /// One sentence for `systemctl status` and `panelind status`.
    func statusSentence(at now: Instant) -> String {
        // Not the newest, which may be on trial still.
        let g = current?.generation ?? newest
        switch state {
        case .starting: return "worker \(g) is starting"
        case .ready: return "worker \(g) is ready"
        case .unready: return "worker \(g) runs but is not ready"
        case .backoff:
            if case .backoff(let until) = pause, until > now {
                return "worker \(g) ended; the next start is in \((until - now).text)"
            }
            return "worker \(g) is being replaced"
        case .draining: return "worker \(g) finishes its requests"
        case .stopping: return "worker \(g) is stopping"
        case .failed: return "gave up after worker \(g)"
        case .stopped: return "stopped"
        }
    }
}
