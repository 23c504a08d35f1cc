//  Supervisor+Operator.swift
//  What the operator wants: start, stop, restart, reload, signals to pass, suspension.
//  Intent and state are apart: an intentional stop never spawns. Read after Supervisor.swift.

extension Supervisor {
    mutating func handle(_ wish: OperatorEvent, at now: Instant, _ out: inout Decisions) {
        switch wish {
        case .stop, .reload, .reloadRefused: askedAt = now
        case .start, .killNow, .restart, .pass, .suspend, .resume: break
        }
        switch wish {
        case .start: start(at: now, &out)
        case .stop(let by): stop(by: by, at: now, &out)
        case .killNow: killNow(at: now, &out)
        case .restart: restart(at: now, &out)
        case .reload(let settings): reload(settings, at: now, &out)
        case .reloadRefused(let why): if intent == .run { refuseReload(why, &out) }
        case .pass(let signal):
            if let worker = current, worker.hasLeader { out.worker(worker.generation, .signal(signal, .leader)) }
        case .suspend:
            signalGroups(.stop, &out)
            out.actions.append(.suspendSelf)
            suspendedAt = now
        case .resume: resume(at: now, &out)
        }
    }

    /// SIGCONT: behind a suspension of ours or a SIGSTOP of somebody's. systemd sends one with every SIGTERM and every
    /// reload (systemd.kill(5), systemd.service(5)): that is no gap.
    private mutating func resume(at now: Instant, _ out: inout Decisions) {
        signalGroups(.continue, &out)
        if let since = suspendedAt {
            suspendedAt = nil
            thaw(now - since, at: now, &out)
        } else if askedAt.map({ now - $0 >= Self.gapThreshold }) ?? true {
            // How long nobody ran is not known.
            thaw(.zero, at: now, &out)
        }
    }

    private func signalGroups(_ signal: Signal, _ out: inout Decisions) {
        for worker in [current, other].compactMap({ $0 }) where worker.hasLeader {
            out.worker(worker.generation, .signal(signal, .group))
        }
    }

    private mutating func start(at now: Instant, _ out: inout Decisions) {
        switch intent {
        case .wait:
            intent = .run
            pingAt = settings.watchdogPing.map { now + $0 }
            out.because(.firstStart)
            out.actions.append(.notify(.extendTimeout(settings.worker.startupDeadline + settings.stop.budget)))
        case .run, .stop, .leave:
            break  // Started once.
        }
    }

    private mutating func stop(by who: String, at now: Instant, _ out: inout Decisions) {
        let budgetEnd: Instant
        switch intent {
        case .wait, .run:
            budgetEnd = now + settings.stop.budget
        case .stop:
            return  // A second request changes nothing (CONTRACT section 3).
        case .leave(let code, let by):
            guard by == nil else { return }
            // The policy's end is under way. It was not asked for, and keeps its code; the budget binds it now.
            budgetEnd = now + settings.stop.budget
            intent = .leave(code: code, by: budgetEnd)
            if case .flushing(let until, let code) = end {
                end = .flushing(until: min(until, budgetEnd - Self.exitReserve), code: code)
            }
            for generation in generations { change(generation) { $0.leave(.stop, end: budgetEnd, at: now, &out) } }
            return
        }
        intent = .stop(by: budgetEnd)
        sequel = .judge
        if case .backoff = pause { pause = .none }
        out.because(.stopRequested(by: who))
        // Before STOPPING=1: the reload's READY=1 behind it would take it back.
        if let generation = reloading { finishReload(generation, failure: "panelind stops", &out) }
        callOffNextReload("panelind stops", &out)
        out.actions.append(.notify(.stopping))
        out.actions.append(.notify(.extendTimeout(settings.stop.budget)))
        for generation in generations { change(generation) { $0.leave(.stop, end: budgetEnd, at: now, &out) } }
    }

    private mutating func killNow(at now: Instant, _ out: inout Decisions) {
        stop(by: "a second interrupt", at: now, &out)
        out.because(.secondInterrupt)
        guard case .stop(let end) = intent else { return }
        for generation in generations { change(generation) { $0.kill(end: end, at: now, &out) } }
    }

    /// The stop signal goes at once, whatever the worker does; another follows when its tree is gone.
    private mutating func restart(at now: Instant, _ out: inout Decisions) {
        guard intent == .run else { return }
        out.because(.restartRequested)
        policy.clear()
        pause = .none
        nextIsUnplanned = false
        sequel = .replace
        callOffNextReload("a restart was asked for", &out)
        if let worker = other, role == .successor {
            finishReload(worker.generation, failure: "a restart was asked for", &out)
            change(worker.generation) { $0.leave(.discarded, end: nil, at: now, &out) }
        }
        if let worker = current { change(worker.generation) { $0.leave(.restart, end: nil, at: now, &out) } }
    }

    /// Replaces the worker. Where the predecessor of the last reload still leaves, this one begins when it is gone.
    private mutating func reload(_ new: SupervisorSettings, at now: Instant, _ out: inout Decisions) {
        guard intent == .run else { return }
        out.because(.reloadRequested)
        guard reloading == nil, nextReload == nil else {
            let why = "another reload is under way"
            out.report(.reloadEnd(newest.next, failure: why))
            return refuseReload(why, &out)
        }
        out.actions.append(.notify(.reloading))
        guard !hasOther else {
            nextReload = new
            return
        }
        beginReload(new, at: now, &out)
    }

    /// The slot beside the current worker is free: the next one starts beside the old where both can serve, else after.
    mutating func beginReload(_ new: SupervisorSettings, at now: Instant, _ out: inout Decisions) {
        let generation = newest.next
        out.report(.reloadBegin(generation))
        reloading = generation
        if let worker = current, worker.isReady || worker.life == .unready, new.overlaps, settings.overlaps {
            role = .successor
            other = start(new, at: now, &out)
            return
        }
        settings = new
        policy.clear()
        pause = .none
        nextIsUnplanned = false
        sequel = .replace
        if let worker = current { change(worker.generation) { $0.leave(.restart, end: nil, at: now, &out) } }
    }

    /// Something else was asked for, or decided, before it could begin.
    mutating func callOffNextReload(_ why: String, _ out: inout Decisions) {
        guard nextReload != nil else { return }
        nextReload = nil
        trouble = "the reload failed: \(why)"
        out.report(.reloadEnd(newest.next, failure: why))
        if toldReady { out.actions.append(.notify(.ready)) }
    }

    /// `systemctl reload` waits for READY=1 behind a RELOADING=1 of its own (systemd.service(5), notify-reload).
    private mutating func refuseReload(_ why: String, _ out: inout Decisions) {
        // Before first ready systemd asks for no reload.
        guard toldReady else { return }
        out.actions.append(.notify(.reloading))
        // Else the reload that is under way says READY=1 at its end.
        guard reloading == nil else { return }
        trouble = "the reload was refused: \(why)"
        out.actions.append(.notify(.ready))
    }
}
