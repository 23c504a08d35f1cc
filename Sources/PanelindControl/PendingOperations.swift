//  PendingOperations.swift
//  Restart, reload and stop that somebody waits for: answered when the machine's steps say that they are done.
//  No timer: every one of them has an end in the machine (a deadline, an exit). Read after Facts.swift.

import PanelindCore

/// How an operation ended.
struct Outcome: Hashable {
    /// 200, or the status of a problem.
    var status: Int
    /// One sentence; the problem's detail.
    var message: String
    /// More members of the answer.
    var members: [JSON.Member] = []
}

/// Those who wait; on the main thread only.
final class PendingOperations {
    enum Kind: Hashable { case restart, reload, stop }

    private struct Waiter {
        let id: Int
        let kind: Kind
        /// The newest worker when it was asked for.
        let newest: Int
        /// The machine has taken it up.
        var isBegun = false
        /// The old worker leaves before the new one starts.
        var stopsFirst = false
        /// There is an old worker beside the new one.
        var overlaps = false
        let answer: (Outcome) -> Void

        /// The step in which its reload begins.
        mutating func noteBegin(_ step: Step) {
            stopsFirst = step.actions.contains { action in
                // Side by side the new one is started in this very step; else the old one is told to go.
                if case .worker(_, .signal) = action { return true }
                return false
            }
            // In backoff or failed there is no old one; it starts alone.
            overlaps = !stopsFirst && step.from != .backoff && step.from != .failed
        }
    }

    private var waiters: [Waiter] = []
    /// Decided in a step; given when the machine is at rest, with everything of the step done.
    private var due: [(answer: (Outcome) -> Void, outcome: Outcome)] = []
    private var nextID = 0

    /// Registers one before its event is handed to the machine.
    func add(_ kind: Kind, newest: Int, _ answer: @escaping (Outcome) -> Void) -> Int {
        nextID += 1
        waiters.append(Waiter(id: nextID, kind: kind, newest: newest, answer: answer))
        return nextID
    }

    /// Nobody waits for it any more; the operation itself goes on.
    func remove(_ id: Int) { waiters.removeAll { $0.id == id } }

    /// How many wait.
    var count: Int { waiters.count }

    /// Judges a step.
    func take(_ step: Step) {
        guard !waiters.isEmpty else { return }
        if case .operator(let wish) = step.event { begin(wish, step) }
        for case .report(let report) in step.actions {
            switch report {
            case .workerReady(let generation, let after):
                finish(.restart, below: generation.number) { _ in
                    Outcome(
                        status: 200, message: "worker \(generation) is ready after \(Times.span(after))",
                        members: [JSON.Member("generation", .int(Int64(generation.number)))])
                }
            case .workerExited(let generation, let ending, let restartIn):
                guard !ending.requested else { continue }
                finish(.restart, below: generation.number) { _ in
                    let next = restartIn.map { "; the next start is in \(Times.span($0))" } ?? ""
                    return Outcome(
                        status: 502,
                        message:
                            "worker \(generation) ended before it was ready: \(ending.text)\(next); see panelind why",
                        members: [JSON.Member("generation", .int(Int64(generation.number)))])
                }
            case .reloadBegin:
                // At once, or when the worker that the reload before it left over has gone.
                for index in waiters.indices where waiters[index].kind == .reload && waiters[index].isBegun {
                    waiters[index].noteBegin(step)
                }
            case .reloadEnd(let generation, let failure):
                // A reload that was refused beside this one is told in the step of its own wish.
                if case .operator(.reload) = step.event { continue }
                // A stop or a restart calls it off, and is the old one's end too.
                let isCalledOff = if case .operator = step.event { true } else { false }
                finish(.reload, below: .max) { Self.reloaded(generation, failure, isCalledOff: isCalledOff, $0) }
            default: break
            }
        }
    }

    private func begin(_ wish: OperatorEvent, _ step: Step) {
        let kind: Kind
        let isTaken: Bool
        switch wish {
        case .restart:
            kind = .restart
            isTaken = step.rules.contains(.restartRequested)
        case .reload:
            kind = .reload
            isTaken = step.rules.contains(.reloadRequested)
        case .stop:
            return finish(.restart, below: .max) { _ in Outcome(status: 409, message: "panelind stops") }
        case .start, .killNow, .reloadRefused, .pass, .suspend, .resume: return
        }
        guard let index = waiters.firstIndex(where: { $0.kind == kind && !$0.isBegun }) else { return }
        guard isTaken else {
            return finish(index, Outcome(status: 409, message: "panelind is ending, and starts no worker any more"))
        }
        waiters[index].isBegun = true
        for case .report(.reloadEnd(_, let failure?)) in step.actions where kind == .reload {
            return finish(index, Outcome(status: 409, message: failure))
        }
    }

    private static func reloaded(
        _ generation: Generation, _ failure: String?, isCalledOff: Bool, _ waiter: Waiter
    ) -> Outcome {
        let members = [
            JSON.Member("generation", .int(Int64(generation.number))),
            JSON.Member("overlapped", .bool(waiter.overlaps)),
        ]
        let how = waiter.stopsFirst ? "; the two could not serve side by side, so the old one was stopped first" : ""
        guard let failure else {
            return Outcome(status: 200, message: "worker \(generation) has taken over\(how)", members: members)
        }
        let old = waiter.overlaps && !isCalledOff ? "; the old one keeps serving" : ""
        return Outcome(
            status: 502, message: "worker \(generation) could not take over: \(failure)\(old); see panelind why",
            members: members)
    }

    private func finish(_ kind: Kind, below generation: Int, _ outcome: (Waiter) -> Outcome) {
        for index in waiters.indices.reversed() {
            let waiter = waiters[index]
            if waiter.kind == kind, waiter.isBegun, waiter.newest < generation { finish(index, outcome(waiter)) }
        }
    }

    private func finish(_ index: Int, _ outcome: Outcome) {
        due.append((waiters.remove(at: index).answer, outcome))
    }

    /// Gives the answers that are due.
    func answer() {
        guard !due.isEmpty else { return }
        let now = due
        due = []
        for one in now { one.answer(one.outcome) }
    }

    /// panelind ends now with this code: the last moment to say so to whoever waits.
    func end(code: Int32) {
        for waiter in waiters {
            let outcome =
                waiter.kind == .stop
                ? Outcome(
                    status: 200, message: "panelind has stopped",
                    members: [JSON.Member("exit_code", .int(Int64(code)))])
                : Outcome(status: 409, message: "panelind has ended with code \(code)")
            due.append((waiter.answer, outcome))
        }
        waiters = []
        answer()
    }
}
