//  World+Actions.swift
//  What answers an action, and how badly: late, never, failed, twice, after the generation is gone.
//  Read World.swift first.

import PanelindCore

extension World {
    /// Plans an answer.
    /// - Parameters:
    ///   - delay: milliseconds a prompt answer takes.
    ///   - canBeLost: the machine promises to survive its absence.
    func answer(_ event: Event, within delay: ClosedRange<Int>, canBeLost: Bool) {
        var after = random.duration(delay)
        if !isHealed {
            if canBeLost, random.chance(plan.answers.lost) { return }
            if random.chance(plan.answers.late) { after += random.duration(plan.answers.lateBy) }
            if random.chance(plan.answers.twice) {
                agenda.plan(.tell(event), at: now + after + random.duration(0...random.pick(2, 15_000)))
            }
        }
        agenda.plan(.tell(event), at: now + after)
    }

    func perform(_ action: WorkerAction, for generation: Generation) {
        switch action {
        case .prepare:
            if !isHealed, random.chance(plan.answers.prepareFails) {
                let failure = StartFailure(.other, "cannot read the secret TOKEN: no such file")
                answer(.worker(generation, .prepareFailed(failure)), within: 0...50, canBeLost: true)
            } else {
                answer(.worker(generation, .prepared), within: 0...50, canBeLost: true)
            }
        case .spawn(let revision):
            // It always answers, though it may take its time; the process is there from the answer on.
            var after = plan.answers.isInstant ? Duration.zero : random.duration(0...3)
            if !isHealed, random.chance(plan.answers.late) { after += random.duration(0...200) }
            agenda.plan(.make(generation, revision: revision), at: now + after)
        case .signal(let signal, let target):
            for process in kernel.processes
            where process.generation == generation && (process.isLeader || (target == .group && process.isInGroup)) {
                send(signal, to: process.id)
            }
        case .sweep(let signal, let sparingGroup): sweep(generation, signal, sparingGroup: sparingGroup)
        case .ask(let kind, let attempt, let probe): ask(generation, kind, attempt, probe)
        case .abandon: break  // Answers under way come all the same: the worst case.
        case .forget: forgetUpstream(generation)
        }
    }

    /// One pass over the tree, as it is now.
    private func sweep(_ generation: Generation, _ signal: Signal?, sparingGroup: Bool) {
        var killed: [Survivor] = []
        let left = kernel.survivors(of: generation)
        if let signal {
            if signal == .kill { killed = left }
            for process in kernel.processes
            where process.generation == generation && process.isAlive && !(sparingGroup && process.isInGroup) {
                send(signal, to: process.id)
            }
        }
        answer(.worker(generation, .swept(left: left, killed: killed)), within: 0...3, canBeLost: true)
    }

    /// One attempt of a probe, answered as the worker is now.
    private func ask(_ generation: Generation, _ kind: ProbeKind, _ attempt: Int, _ probe: ProbeSettings) {
        let outcome: ProbeOutcome?
        if kind == .connection {
            outcome = listens(generation) ? .passed : .failed("connection refused")
        } else if plan.settings.mode == .socket, probe.method == .http("/ready") || probe.method == .tcp("") {
            // Whoever of those that share the socket takes the connection; nobody is a wait in its queue.
            let answers = workers.indices.compactMap { reply(of: $0) }
            outcome = answers.isEmpty ? nil : answers[random.below(answers.count)]
        } else if let i = worker(generation) {
            outcome = kernel.process(workers[i].leader)?.isAlive == true ? reply(of: i) : .failed("connection refused")
        } else {
            outcome = .failed("connection refused")
        }
        guard let outcome else { return }
        let timeoutMs = Int(probe.timeout.nanoseconds / 1_000_000)
        answer(
            .worker(generation, .answered(kind, attempt: attempt, outcome)),
            within: 0...min(timeoutMs / 2, 30), canBeLost: true)
    }

    /// What a request to this worker's process would get; nil: silence.
    private func reply(of i: Int) -> ProbeOutcome? {
        guard let leader = kernel.process(workers[i].leader), leader.isRunning, !workers[i].isHung else { return nil }
        return workers[i].wouldServe ? .passed : .failed("HTTP 503")
    }
}
