//  Why.swift
//  The causal chain that led to the present state, newest last, with what may help and the worker's last lines.
//  Pure: from the chronicle and the moment's facts. Read after Sentences.swift and Advice.swift.

import PanelindCore

/// The answer to "what is it doing, and why?".
struct Why {
    /// One link of the chain.
    struct Link {
        var moment: Moment
        var sentence: Sentence
    }

    /// The present state in one sentence.
    var summary: String
    var chain: [Link]
    /// How many links between the first and the second of the chain were left out.
    var omitted = 0
    /// What may help; nil where nothing is wrong, or nothing is known.
    var advice: String?
    /// Whose last lines are shown, and the lines.
    var output: (generation: Int, lines: [String])?

    /// So many links at most.
    static let longest = 16
    /// Lines of output at most.
    static let lines = 20
    /// A readiness this long ended whatever was before it.
    static let calm: Duration = .seconds(10)

    /// - Parameter recent: the last lines of the worker that runs; used where no end explains the state.
    init(_ facts: Facts, _ room: ControlRoom, recent: [String]) {
        let moments = room.chronicle.moments
        let state = facts.health.state
        var selected = Self.told(moments[Self.anchor(moments)...])
        if selected.count > Self.longest {
            omitted = selected.count - Self.longest
            selected.removeSubrange(1...omitted)
        }
        chain = selected.map { Link(moment: $0, sentence: $0.sentence) }
        summary = Self.summary(facts, room, moments)
        let lastEnd = moments.last { $0.isUnaskedEnd }
        let running = facts.serving.flatMap { room.worker($0) }
        switch state {
        case .ready, .stopped: break
        case .starting, .unready:
            // The end before explains more than a start that has only begun.
            let isLoop = state == .starting && chain.contains { $0.moment.isUnaskedEnd }
            if !isLoop, let running {
                output = (running.generation, Array(recent.suffix(Self.lines)))
                let isSlow = moments.contains { $0.isProbeFailure(of: running.generation) }
                if state == .starting, isSlow { advice = Advice.aboutStart(facts: facts) }
                if state == .unready {
                    advice = Advice.aboutUnready(moments.last { $0.isUnready }?.what, facts: facts)
                }
            } else {
                explain(lastEnd, room, facts)
            }
        case .backoff, .failed: explain(lastEnd, room, facts)
        case .draining, .stopping:
            if let running { output = (running.generation, Array(recent.suffix(Self.lines))) }
        }
    }

    private mutating func explain(_ end: Moment?, _ room: ControlRoom, _ facts: Facts) {
        guard let end, case .exited(let ending, _, let rule) = end.what else { return }
        var lines: [String] = []
        if let words = room.chronicle.lastWords, words.generation == end.generation {
            lines = words.lines
            if !lines.isEmpty { output = (words.generation, Array(lines.suffix(Self.lines))) }
        }
        advice = Advice.about(ending, lines: lines, facts: facts)
        if advice == nil, output != nil { advice = "the last output below is the best clue." }
        if case .permanentExitCode(let code)? = rule {
            let more =
                "If exit code \(code) can be a passing trouble of this worker, take it out of "
                + "restart.permanentExitCodes."
            advice = advice.map { "\($0) \(more)" } ?? more
        }
        if facts.health.state == .failed {
            advice = (advice.map { "\($0) " } ?? "") + "When that is mended: `panelind restart`."
        }
    }

    /// Where the chain begins: at the last calm readiness before the last trouble, else at the start.
    private static func anchor(_ moments: [Moment]) -> Int {
        var index = moments.count - 1
        while index > 0 {
            defer { index -= 1 }
            guard case .ready = moments[index].what else { continue }
            let isLast = index == moments.count - 1
            if !isLast, moments[index + 1].at - moments[index].at >= calm { return index }
        }
        return 0
    }

    /// Without what a later moment of the same worker says again.
    private static func told(_ moments: ArraySlice<Moment>) -> [Moment] {
        moments.indices.compactMap { index in
            let moment = moments[index]
            let later = moments[(index + 1)...]
            let isSaidAgain =
                switch moment.what {
                case .started: later.contains { $0.isAbout(moment.generation) && $0.saysStart }
                case .probeFailed(let kind, _, let beforeReady):
                    later.contains {
                        $0.isAbout(moment.generation) && (beforeReady && $0.saysReady || $0.isVerdict(of: kind))
                    }
                        // Unready it is already, and why was said.
                        || kind != .liveness
                            && moments[..<index].last {
                                $0.isAbout(moment.generation) && ($0.isUnready || $0.saysReady)
                            }?.isUnready == true
                case .gaveUp: moments.startIndex < index && moments[index - 1].isUnaskedEnd
                default: false
                }
            return isSaidAgain ? nil : moment
        }
    }

    private static func summary(_ facts: Facts, _ room: ControlRoom, _ moments: [Moment]) -> String {
        let worker = room.worker(facts.serving)
        let name = facts.serving.map { "worker g\($0)" } ?? "the worker"
        func since(_ wall: Int64?) -> String {
            wall.map { " for \(Times.span(.nanoseconds(facts.wall - $0)))" } ?? ""
        }
        switch facts.health.state {
        case .ready:
            return "ready: \(name) has been serving\(since(worker?.readyWall))"
        case .starting:
            guard let worker else { return "starting: the first process of \(name) is being made" }
            let left = facts.startupDeadline - .nanoseconds(facts.wall - worker.startedWall)
            return "starting: \(name) has been running\(since(worker.startedWall)) and is not ready; it has "
                + "\(Times.span(left)) left (probe.startup.deadline)"
        case .unready:
            let last = moments.last { $0.isUnready }
            if case .unready(_, isRefused: true)? = last?.what {
                return "unready: \(name) runs, but has been refusing connections\(since(last?.wall))"
            }
            return "unready: \(name) runs, but its readiness probe has been failing\(since(last?.wall))"
        case .backoff:
            guard let next = room.nextStart, next > facts.now else { return "backoff: \(name) is being replaced" }
            return "backoff: no worker runs; the next start is in \(Times.span(next - facts.now))"
        case .draining:
            return "draining: panelind is stopping; requests in flight may finish"
        case .stopping:
            return "stopping: panelind ends within its budget of \(Times.span(facts.stopBudget)) (stop.budget)"
        case .failed:
            return "failed: panelind gave up and starts nothing by itself; `panelind restart` starts again"
        case .stopped:
            return "stopped"
        }
    }
}

extension Moment {
    /// This worker, or several with this one among them.
    fileprivate func isAbout(_ worker: Int?) -> Bool {
        guard let worker, let generation, let firstGeneration else { return false }
        return (firstGeneration...generation).contains(worker)
    }

    fileprivate var saysReady: Bool {
        if case .ready = what { return true }
        return false
    }

    /// What this probe's failures have led to.
    fileprivate func isVerdict(of kind: ProbeKind) -> Bool {
        switch what {
        case .unready(_, let isRefused): kind == (isRefused ? .connection : .readiness)
        case .decided(.livenessFailed): kind == .liveness
        case .decided(.startupDeadlinePassed): kind != .liveness
        default: false
        }
    }

    fileprivate var isUnready: Bool {
        if case .unready = what { return true }
        return false
    }

    fileprivate var saysStart: Bool {
        switch what {
        case .ready, .exited, .probeFailed: true
        default: false
        }
    }

    var isUnaskedEnd: Bool {
        if case .exited(let ending, _, _) = what { return !ending.requested }
        return false
    }

    func isProbeFailure(of generation: Int) -> Bool {
        if case .probeFailed = what { return self.generation == generation }
        return false
    }
}

extension Why {
    /// For programs.
    func json(_ facts: Facts, nextStart: Instant?) -> JSON {
        let links = chain.map { link in
            JSON.object([
                JSON.Member("time", .string(Times.utc(link.moment.wall))),
                JSON.Member("first_time", .string(Times.utc(link.moment.firstWall))),
                JSON.Member("count", .int(Int64(link.moment.count))),
                JSON.Member("generation", .int(orNull: link.moment.generation)),
                JSON.Member("sentence", .string(link.sentence.what)),
                JSON.Member("decision", .string(orNull: link.sentence.decision)),
                JSON.Member("because", .string(orNull: link.sentence.because)),
                JSON.Member("setting", .string(orNull: link.sentence.setting)),
            ])
        }
        let wait = nextStart.map { max(.zero, $0 - facts.now).seconds }
        return .object([
            JSON.Member("state", .string(facts.health.state.rawValue)), JSON.Member("summary", .string(summary)),
            JSON.Member("chain", .array(links)), JSON.Member("omitted", .int(Int64(omitted))),
            JSON.Member("advice", .string(orNull: advice)),
            JSON.Member("next_restart_in_seconds", .seconds(wait)),
            JSON.Member(
                "last_output",
                output.map { output in
                    .object([
                        JSON.Member("generation", .int(Int64(output.generation))),
                        JSON.Member("lines", .strings(output.lines)),
                    ])
                } ?? .null),
        ])
    }

    /// For people, in lines.
    func text(wall: Int64) -> String {
        var text = summary + "\n"
        for (index, link) in chain.enumerated() {
            text += index == 0 ? "\n" : ""
            text += "  \(Times.local(link.moment.wall, now: wall))  \(link.sentence.what)"
            let indent = String(repeating: " ", count: 4 + Times.local(link.moment.wall, now: wall).utf8.count)
            let setting = link.sentence.setting.map { " (\($0))" } ?? ""
            if link.sentence.decision == nil, link.sentence.because == nil { text += setting }
            text += "\n"
            if let decision = link.sentence.decision {
                text += "\(indent)-> \(decision)" + (link.sentence.because == nil ? setting : "") + "\n"
            }
            if let because = link.sentence.because { text += "\(indent)   because \(because)\(setting)\n" }
            if index == 0, omitted > 0 { text += "  … \(omitted) more steps …\n" }
        }
        if let advice { text += "\nwhat may help: \(advice)\n" }
        if let output, !output.lines.isEmpty {
            text += "\nlast output of worker g\(output.generation):\n"
            for line in output.lines { text += "  | \(line.withoutControls)\n" }
        }
        return text
    }
}
