//  Shrink.swift
//  Makes the story of a broken law short: leaves out wishes, faults, workers and settings while the law stays broken.
//  Greedy and deterministic: the same seed shrinks to the same story. Read Simulation.swift first.

import PanelindCore

/// Looks for the smallest plan that breaks the same law.
public struct Shrink {
    /// The smallest plan found.
    public private(set) var plan: FaultPlan
    /// How it ends.
    public private(set) var verdict: Verdict
    /// Worlds that were tried.
    public private(set) var runs = 0
    private let law: Law
    private let mostRuns: Int

    /// Shrinks a plan that breaks a law; nil if it breaks none.
    /// - Parameter runs: so many worlds are tried at most.
    public init?(_ plan: FaultPlan, runs: Int = 3000) {
        verdict = Simulation.run(plan)
        guard let violation = verdict.violation else { return nil }
        self.plan = plan
        law = violation.law
        mostRuns = runs
        shrink()
        verdict = Simulation.run(self.plan, transcript: true)
    }

    private mutating func shrink() {
        attempt { $0.listWorkers() }
        var before = -1
        while before != runs, runs < mostRuns {
            before = runs
            var hasShrunk = cutTime()
            hasShrunk = leaveOutWishes() || hasShrunk
            for simplify in Self.simplifications { hasShrunk = attempt(simplify) || hasShrunk }
            hasShrunk = simplifyWorkers() || hasShrunk
            if !hasShrunk { return }
        }
    }

    /// Takes the changed plan where it breaks the same law.
    @discardableResult
    private mutating func attempt(_ change: (inout FaultPlan) -> Void) -> Bool {
        guard runs < mostRuns else { return false }
        var changed = plan
        change(&changed)
        guard changed.text != plan.text, changed.starts == plan.starts else { return false }
        runs += 1
        let result = Simulation.run(changed)
        guard result.violation?.law == law else { return false }
        plan = changed
        verdict = result
        return true
    }

    private mutating func cutTime() -> Bool {
        guard let at = verdict.violation?.at else { return false }
        let end = (at - Instant.zero) + .milliseconds(1)
        let cut = attempt {
            $0.checksLiveness = false
            $0.safety = min($0.safety, end)
        }
        return attempt { it in it.wishes.removeAll { $0.at > end } } || cut
    }

    private mutating func leaveOutWishes() -> Bool {
        var size = plan.wishes.count
        var hasShrunk = false
        while size > 0 {
            var from = 0
            while from < plan.wishes.count {
                let range = from..<min(from + size, plan.wishes.count)
                if attempt({ $0.wishes.removeSubrange(range) }) { hasShrunk = true } else { from += size }
            }
            size /= 2
        }
        return hasShrunk
    }

    private mutating func simplifyWorkers() -> Bool {
        var hasShrunk = false
        while !plan.workers.isEmpty, attempt({ $0.workers.removeLast() }) { hasShrunk = true }
        for i in plan.workers.indices {
            if attempt({ $0.workers[i] = Behaviour() }) {
                hasShrunk = true
                continue
            }
            for simplify in Self.workerSimplifications {
                hasShrunk = attempt { simplify(&$0.workers[i]) } || hasShrunk
            }
        }
        return hasShrunk
    }

    private static let workerSimplifications: [@Sendable (inout Behaviour) -> Void] = [
        { $0.children = [] }, { $0.words = [] }, { $0.hangs = nil }, { $0.flaps = nil }, { $0.sleeps = nil },
        { $0.pingsUntil = nil }, { $0.notifies = false }, { $0.refuses = nil }, { $0.ends = nil },
        { $0.stopsWithin = .milliseconds(50) }, { $0.stopCode = 0 }, { $0.upAfter = .milliseconds(300) },
    ]

    private static let simplifications: [@Sendable (inout FaultPlan) -> Void] = [
        { $0.traffic = nil }, { $0.troublesClients = false }, { $0.traffic = $0.traffic.map { $0 * 4 } },
        { $0.answers = AnswerFaults() }, { $0.answers.late = 0 }, { $0.answers.lost = 0 }, { $0.answers.twice = 0 },
        { $0.answers.prepareFails = 0 }, { $0.answers.spawnFails = 0 }, { $0.answers.isInstant = false },
        { $0.answers.timerLate = 0 }, { $0.admissions = [:] }, { $0.settings.worker.startup = nil },
        { $0.settings.worker.readiness = nil }, { $0.settings.worker.liveness = nil },
        { $0.settings.worker.watchdog = nil }, { $0.settings.worker.needsPreparation = false },
        { $0.settings.restart = RestartSettings() }, { $0.settings.watchdogPing = nil },
        { $0.settings.adoptsOrphans = true }, { $0.settings.hold = .seconds(10) },
        { $0.settings.stop.steps = [StopStep(.terminate)] }, { $0.settings.stop.target = .group },
    ]
}

extension FaultPlan {
    /// What is not as in a plan without faults, one line each.
    public var story: [String] {
        var lines: [String] = []
        let calm = FaultPlan(seed: seed)
        lines += Self.differences(settings, calm.settings).map { "settings.\($0)" }
        lines += Self.differences(answers, calm.answers).map { "answers.\($0)" }
        for (revision, bounds) in admissions.sorted(by: { $0.key < $1.key }) {
            lines += Self.differences(bounds, AdmissionSettings()).map { "front of revision \(revision): \($0)" }
        }
        for (i, worker) in workers.enumerated() {
            lines += Self.differences(worker, Behaviour()).map { "worker g\(i + 1): \($0)" }
        }
        if drawsWorkers { lines.append("workers are drawn from the seed") }
        if let traffic { lines.append("a client every \(traffic.text)\(troublesClients ? ", some with trouble" : "")") }
        lines += wishes.map { "+\($0.at.text) \($0.wish.text)" }
        lines.append("for \(safety.text)\(checksLiveness ? ", then faults stop" : "")")
        return lines
    }

    /// panelind is told to start.
    var starts: Bool {
        wishes.contains { if case .tell(.start) = $0.wish { true } else { false } }
    }

    /// Equal plans have equal texts.
    var text: String { story.joined(separator: "\n") }

    /// The fields of a value that are not as in the other.
    private static func differences<T>(_ value: T, _ other: T) -> [String] {
        zip(Mirror(reflecting: value).children, Mirror(reflecting: other).children).flatMap { mine, its -> [String] in
            let text = "\(mine.value)"
            guard text != "\(its.value)", let label = mine.label else { return [] }
            return [
                "\(label) = " + text.replacing(moduleName: "PanelindCore.").replacing(moduleName: "PanelindSimulation.")
            ]
        }
    }
}

extension String {
    /// Without a module's name before each type.
    fileprivate func replacing(moduleName name: String) -> String {
        var out = ""
        var rest = self[...]
        while !rest.isEmpty {
            if rest.hasPrefix(name) { rest = rest.dropFirst(name.count) } else { out.append(rest.removeFirst()) }
        }
        return out
    }
}

extension Wish {
    /// A few words.
    var text: String {
        switch self {
        case .tell(let wish): Event.operator(wish).text
        case .freeze(let all, let duration): "freeze \(all ? "everything" : "panelind") for \(duration.text)"
        case .burst(let count): "\(count) clients come at once"
        case .signal(let signal): "somebody sends \(signal) to the worker"
        }
    }
}
