//  Supervisor+Workers.swift
//  What the workers' news mean for the whole: whose turn it is, and what follows an end.
//  Read after Supervisor.swift and Worker.swift.

extension Supervisor {
    /// Hands the news to the slot of its generation; news of one that is gone are ignored.
    mutating func handle(
        _ news: WorkerEvent, of generation: Generation, at now: Instant, _ out: inout Decisions
    ) {
        let isShared = socketIsShared
        change(generation) { worker in
            switch news {
            case .prepared: worker.prepared(at: now, &out)
            case .prepareFailed(let failure): worker.prepareFailed(failure, &out)
            case .spawnFailed(let failure): worker.spawnFailed(failure, &out)
            case .spawned(let pid):
                worker.spawned(pid: pid, at: now, &out)
            case .exited(let status, let use, let oom): worker.exited(status, use, oom: oom, at: now, &out)
            case .orphansReaped: worker.orphansReaped(at: now, &out)
            case .swept(let left, let killed): worker.swept(left: left, killed: killed, at: now, &out)
            case .answered(let kind, let attempt, let outcome):
                worker.answered(kind, attempt: attempt, outcome, isShared: isShared, at: now, &out)
            case .notified(let notification): worker.notified(notification, at: now, &out)
            case .logMatched: worker.logMatched(at: now, &out)
            case .descriptor(let ready): worker.descriptor(ready: ready, at: now, &out)
            }
        }
        if case .spawned = news { ranBefore = true }
    }

    /// After every event: judges ends, fills free slots, ends panelind. Idempotent when nothing happened.
    mutating func settle(at now: Instant, _ out: inout Decisions) {
        settleOther(at: now, &out)
        settleCurrent(at: now, &out)
        // Again: the end of the current one may have been the end of the other.
        settleOther(at: now, &out)
        settleEnd(at: now, &out)
    }

    private mutating func settleOther(at now: Instant, _ out: inout Decisions) {
        guard hasOther, let worker = other else { return }
        switch role {
        case .successor:
            if worker.isReady, let old = current {
                promote(worker, over: old, at: now, &out)
            } else if let ending = worker.ending {
                // It failed on trial: the old one keeps serving.
                failReload(of: worker.generation, ending.text, &out)
            } else if case .leaving(let plan) = worker.life, case .failed(let cause) = plan.reason {
                failReload(of: worker.generation, cause.rawValue, &out)
            }
        case .predecessor:
            break
        }
        guard let worker = other, worker.isGone else { return }
        // One that died before its successor took over was judged and reported then.
        if let ending = worker.ending, worker.generation != judged {
            reportExit(worker.generation, ending, restartIn: nil, &out)
        }
        other = nil
        guard let new = nextReload, intent == .run else { return }
        nextReload = nil
        out.because(.reloadRequested)
        beginReload(new, at: now, &out)
    }

    /// The newer worker is ready: it takes over, the older one drains and leaves.
    private mutating func promote(
        _ successor: Worker, over old: Worker, at now: Instant, _ out: inout Decisions
    ) {
        current = successor
        other = old
        role = .predecessor
        settings = successor.settings
        pause = .none
        sequel = .judge
        policy.clear()
        finishReload(successor.generation, failure: nil, &out)
        change(old.generation) { $0.leave(.replaced, end: nil, at: now, &out) }
    }

    private mutating func failReload(of generation: Generation, _ why: String, _ out: inout Decisions) {
        guard reloading == generation else { return }
        out.because(.reloadFailed(why))
        finishReload(generation, failure: why, &out)
    }

    mutating func finishReload(_ generation: Generation, failure: String?, _ out: inout Decisions) {
        guard reloading == generation else { return }
        reloading = nil
        if let failure { trouble = "the reload failed: \(failure)" }
        out.report(.reloadEnd(generation, failure: failure))
        if toldReady { out.actions.append(.notify(.ready)) }
    }

    private mutating func settleCurrent(at now: Instant, _ out: inout Decisions) {
        if let generation = current?.generation {
            if current?.isReady == true, reloading == generation {
                // As in `promote`: it may have come to the slot by the death of the one before it.
                policy.clear()
                finishReload(generation, failure: nil, &out)
            }
            if let ending = current?.ending { judge(generation, ending, at: now, &out) }
            if current?.isGone == true { current = nil }
        }
        guard current?.generation == nil, intent == .run else { return }
        if let worker = other, role == .successor, worker.isInService {
            // The old one died while its successor was on trial: there is nothing to go back to.
            current = worker
            other = nil
            settings = worker.settings
            pause = .none
            sequel = .judge
            return
        }
        guard !startIsBlocked else { return }
        switch pause {
        case .failed: return
        case .backoff(let until): guard until <= now else { return }
        case .none: break
        }
        pause = .none
        sequel = .judge
        if nextIsUnplanned { restarts += 1 }
        nextIsUnplanned = false
        let worker = start(settings, at: now, &out)
        current = worker
        if reloading != nil { reloading = worker.generation }
    }

    /// Decides once what follows the end of the current worker. The wait counts from the end, not from the empty tree.
    private mutating func judge(
        _ generation: Generation, _ ending: Ending, at now: Instant, _ out: inout Decisions
    ) {
        guard judged != generation else { return }
        judged = generation
        if reloading == generation {
            finishReload(generation, failure: ending.text, &out)
        }
        switch intent {
        case .stop, .leave, .wait:
            reportExit(generation, ending, restartIn: nil, &out)
            return
        case .run: break
        }
        if !ending.requested { trouble = trouble(of: generation, ending) }
        if sequel == .replace || ending.requested {
            sequel = .replace
            pause = .none
            reportExit(generation, ending, restartIn: .zero, &out)
            return
        }
        switch policy.judge(ending, settings.restart, isFirstStart: !ranBefore) {
        case .restart(let delay, let rule):
            nextIsUnplanned = true
            if role == .successor, other?.isInService == true {
                out.because(.successorStarts)
                return reportExit(generation, ending, restartIn: .zero, &out)
            }
            out.because(rule)
            pause = .backoff(until: now + delay)
            reportExit(generation, ending, restartIn: delay, &out)
            if delay > .zero { out.report(.workerBackoff(generation, delay: delay, rule)) }
        case .giveUp(let rule, let code, let holds):
            out.because(rule)
            var ending = ending
            if case .permanentExitCode = rule { ending.cause = .permanent }
            reportExit(generation, ending, restartIn: nil, &out)
            out.report(.workerFailed(generation, rule))
            pause = .failed
            if !holds { leave(code: code, at: now, &out) }
        case .finish(let code, let rule):
            out.because(rule)
            reportExit(generation, ending, restartIn: nil, &out)
            leave(code: code, at: now, &out)
        }
    }

    /// The end of a worker in words; a probe's or a deadline's verdict says more than the signal that followed.
    private func trouble(of generation: Generation, _ ending: Ending) -> String {
        switch ending.cause {
        case .startupDeadline, .liveness, .watchdog: trouble ?? ending.text
        case .exit, .signal, .oom, .portInUse, .notFound, .permanent, .requested:
            ending.failure?.message ?? "worker \(generation) ended: \(ending.text)"
        }
    }

    /// The policy's own end: no worker follows.
    private mutating func leave(code: Int32, at now: Instant, _ out: inout Decisions) {
        intent = .leave(code: code, by: nil)
        callOffNextReload("panelind ends", &out)
        let budgetEnd = now + settings.stop.budget
        if let worker = other {
            finishReload(worker.generation, failure: "panelind ends", &out)
            change(worker.generation) { $0.leave(.discarded, end: budgetEnd, at: now, &out) }
        }
    }

    private func reportExit(
        _ generation: Generation, _ ending: Ending, restartIn: Duration?, _ out: inout Decisions
    ) {
        out.report(.workerExited(generation, ending, restartIn: restartIn))
    }

    /// When nobody is left and nobody shall come: write out, then exit.
    private mutating func settleEnd(at now: Instant, _ out: inout Decisions) {
        guard intent != .run, end == .no, current?.generation == nil, !hasOther else { return }
        let code: Int32
        switch intent {
        case .wait, .run: return
        case .stop(let by):
            code = 0
            end = .flushing(until: flushEnd(by, at: now), code: code)
        case .leave(let its, let by?):
            code = its
            end = .flushing(until: flushEnd(by, at: now), code: code)
        case .leave(let its, nil):
            code = its
            // Nobody asked for this end: a slow sink has the time of a stop, and the last lines say why it ended.
            end = .flushing(until: now + max(StopSettings.reserve, settings.stop.budget), code: code)
        }
        out.report(.panelindStopped(code: code))
        out.actions.append(.flush)
    }

    /// Also where a clock gap has eaten the budget, what was captured gets a moment.
    private func flushEnd(_ budgetEnd: Instant, at now: Instant) -> Instant {
        max(now, budgetEnd - Self.exitReserve * 2) + Self.exitReserve
    }

    /// What the process itself needs to end, out of the budget.
    static let exitReserve: Duration = .milliseconds(50)

    /// Publishes what changed, before anything else of this step is done: /ready is 503 from here.
    mutating func publish(at now: Instant, _ out: inout Decisions) {
        var first: [Action] = []
        let route = routeNow(at: now)
        // The wait shrinks as time passes; only another way is news.
        var isSameWay = route == self.route
        if case .refuse(let reason, _) = route, case .refuse(let old, _) = self.route { isSameWay = reason == old }
        if !isSameWay {
            self.route = route
            first.append(.front(.route(route)))
        }
        var retryAfter: Duration = .seconds(1)
        if case .backoff(let until) = pause { retryAfter = max(.seconds(1), until - now) }
        let state = state
        if state == .failed { retryAfter = settings.restart.maxDelay }
        let snapshot = HealthSnapshot(
            state: state, generation: newest.number, restarts: restarts, retryAfter: retryAfter)
        // As with the route: only another state makes it news.
        let isNews =
            snapshot.state != self.snapshot.state || snapshot.generation != self.snapshot.generation
            || snapshot.restarts != self.snapshot.restarts
        if isNews {
            self.snapshot = snapshot
            first.append(.publish(snapshot))
        }
        let telling = telling
        if intent != .wait, telling != told {
            told = telling
            first.append(.notify(.status(statusSentence(at: now))))
        }
        // Behind the status: whoever waits for READY=1 reads it next.
        if state == .ready, !toldReady {
            toldReady = true
            first.append(.notify(.ready))
        }
        if !first.isEmpty { out.actions.insert(contentsOf: first, at: 0) }
    }

    /// Where requests go in this state.
    @inline(__always)
    private func routeNow(at now: Instant) -> Route {
        switch state {
        case .ready: return (current?.generation).map { .forward($0) } ?? .hold
        case .draining:
            if let worker = current, case .leaving(let plan) = worker.life, plan.serves, worker.firstReadyAt != nil {
                return .lastCall(worker.generation)
            }
            return .refuse(.draining, retryAfter: .seconds(1))
        case .starting, .unready: return .hold
        case .backoff:
            // From the death on, not from the empty tree: who waits meanwhile waits in vain.
            if case .backoff(let until) = pause, until - now > settings.hold {
                return .refuse(.workerBackoff, retryAfter: until - now)
            }
            return .hold
        case .failed: return .refuse(.workerFailed, retryAfter: settings.restart.maxDelay)
        case .stopping, .stopped: return .refuse(.stopping, retryAfter: .seconds(1))
        }
    }
}
