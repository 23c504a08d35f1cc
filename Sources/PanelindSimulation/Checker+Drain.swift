//  Checker+Drain.swift
//  Judges what the machine asks of the front: where requests go in each state, how a drain begins and ends, and the cut.
//  What the front makes of it is FrontChecker's. Read Checker+Actions.swift first.

import PanelindCore

extension Checker {
    /// A stop was asked for: whoever served until now is to drain.
    func beginDrain(at now: Instant) {
        guard policyCode == nil else { return }
        let i = records.lastIndex { $0.hasBeenReady && !$0.isLeaving && !$0.exitHandled && !$0.isForgotten }
        guard let i, let stop = configurations[records[i].revision]?.stop else { return }
        draining = (Generation(i + 1), until: now + stop.delay + stop.drain * 2 / 3)
    }

    /// Takes in what is asked of the front.
    func note(_ action: FrontAction, _ step: Step) {
        switch action {
        case .route, .dropIdle: break
        case .reportDrain(let generation):
            guard let i = index(generation) else { return }
            require(
                !records[i].isDrainAsked && !records[i].isSignalled, .drainEnds, at: step.at,
                "\(generation) is drained a second time")
            records[i].isDrainAsked = true
        case .cut(let generation): if let i = index(generation) { records[i].isCut = true }
        }
    }

    /// A stop signal goes to this worker.
    func judgeSignal(_ generation: Generation, _ i: Int, _ step: Step) {
        guard !records[i].isSignalled else { return }
        records[i].isSignalled = true
        guard settings.mode == .front, let stop = configurations[records[i].revision]?.stop, stop.drain > .zero
        else { return }
        let isDue = draining?.worker == generation || records[i].isPredecessor
        require(
            !isDue || records[i].isDrainAsked || wasBound(i), .drainEnds, at: step.at,
            "\(generation) is told to stop and nobody asked for its drain")
    }

    /// A stop took the time of a drain that a reload had begun.
    private func wasBound(_ i: Int) -> Bool { stopAt != nil && records[i].isPredecessor }

    /// What the front must be told between any two steps.
    func judgeFront(_ step: Step) {
        let now = step.at
        switch step.event {
        case .front(.drained(let generation)), .front(.onlyStreamsLeft(let generation)):
            guard let i = index(generation), records[i].isDrainAsked, !records[i].exitHandled else { break }
            require(
                records[i].isSignalled || records[i].isCut || records[i].isForgotten, .drainEnds, at: now,
                "\(step.event.text), and it is not told to stop")
        default: break
        }
        switch step.to {
        case .ready, .stopped: break
        case .starting, .unready: require(route == .hold, .holdsHope, at: now, "in \(step.to) \(route) is the route")
        case .failed: requireRefusal(.workerFailed, step)
        case .stopping: requireRefusal(.stopping, step)
        case .draining: if route.target == nil { requireRefusal(.draining, step) }
        case .backoff:
            let wait = notBefore.map { $0 - now } ?? .zero
            if wait > settings.hold {
                requireRefusal(.workerBackoff, step)
            } else {
                require(
                    route == .hold, .holdsHope, at: now, "\(route) is the route, and a worker comes in \(wait.text)")
            }
        }
        judgeDraining(step)
    }

    private func requireRefusal(_ reason: NotReadyReason, _ step: Step) {
        if case .refuse(reason, _) = route { return }
        require(false, .holdsHope, at: step.at, "in \(step.to) \(route) is the route")
    }

    private func judgeDraining(_ step: Step) {
        guard let (generation, until) = draining, let i = index(generation) else { return }
        guard !records[i].exitHandled, !records[i].isSignalled, !records[i].isCut else { return }
        if step.at < until {
            require(
                route == .lastCall(generation), .earlyDrain, at: step.at,
                "\(route) is the route \((until - step.at).text) before that")
        } else if step.event == .time {
            require(route.target == nil, .earlyDrain, at: step.at, "\(route) is the route after that")
        }
    }
}
