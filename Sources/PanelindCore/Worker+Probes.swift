//  Worker+Probes.swift
//  What the worker's probes, notifications and watchdog say, and when they are asked.
//  Read after Worker+Life.swift.

extension Worker {
    /// A probe was answered.
    /// - Parameter isShared: another generation has the same listening socket and may have answered in its place.
    mutating func answered(
        _ kind: ProbeKind, attempt: Int, _ outcome: ProbeOutcome, isShared: Bool, at now: Instant,
        _ out: inout Decisions
    ) {
        switch life {
        case .starting, .ready, .unready:
            take(kind, attempt: attempt, outcome, isShared: isShared, at: now, &out)
        case .preparing, .spawning, .leaving, .sweeping, .gone:
            break  // Abandoned; the answer was under way.
        }
    }

    mutating func notified(_ notification: Notification, at now: Instant, _ out: inout Decisions) {
        switch life {
        case .starting, .ready, .unready:
            switch notification {
            case .ready:
                notifiedReady = true
                if readiness == nil, let attempt = implied?.end() {
                    out.worker(generation, .abandon(.readiness, attempt: attempt))
                }
                aliveAt = nil
            case .reloading, .stopping:
                // Before its first READY a worker's word does not decide: it has not said yet that it speaks.
                if notifiedReady != nil { notifiedReady = false }
            case .status: break  // Kept by the shell for `status`; nothing is decided by it.
            case .watchdog:
                if watchdogAt != nil, let interval = settings.worker.watchdog { watchdogAt = now + interval }
            case .watchdogTrigger:
                // Also where no watchdog is set (sd_notify(3)): the worker knows that something is wrong with it.
                out.because(.watchdogMissed(nil))
                leave(.failed(.watchdog), end: nil, at: now, &out)
                return
            case .extendTimeout(let duration):
                extendedDeadline = now + duration
                extendFirstStart(at: now, &out)
            }
            settleReadiness(at: now, &out)
            askWhatIsDue(at: now, &out)
        case .preparing, .spawning, .leaving, .sweeping, .gone:
            break  // A stop is never extended (DESIGN section 2), and readiness no longer matters.
        }
    }

    /// The front was refused a connection. A process that dies closes its listener first, so its end has a moment to
    /// be heard of; then the worker's address is asked.
    mutating func refused(at now: Instant) {
        switch life {
        case .ready:
            connection = connection ?? Probe(.connection, .ofConnection)
            connection?.begin(at: now)
        case .preparing, .spawning, .starting, .unready, .leaving, .sweeping, .gone:
            break  // It is not said to be ready.
        }
    }

    mutating func logMatched(at now: Instant, _ out: inout Decisions) {
        logSeen = true
        settleReadiness(at: now, &out)
        askWhatIsDue(at: now, &out)
    }

    mutating func descriptor(ready: Bool, at now: Instant, _ out: inout Decisions) {
        // An end without a newline is not readiness: the startup deadline decides.
        guard ready else { return }
        descriptorSeen = true
        settleReadiness(at: now, &out)
        askWhatIsDue(at: now, &out)
    }

    /// Handles whatever of the probes and the watchdog is due.
    mutating func tickProbes(isShared: Bool, at now: Instant, _ out: inout Decisions) {
        for kind in ProbeKind.allCases {
            guard let probe = probe(kind), let attempt = probe.attemptOverdue(at: now) else { continue }
            out.worker(generation, .abandon(kind, attempt: attempt))
            let outcome = ProbeOutcome.failed("no answer in \(probe.settings.timeout.text)")
            take(kind, attempt: attempt, outcome, isShared: isShared, at: now, &out)
            guard isInService else { return }
        }
        if let watchdogAt, watchdogAt <= now, let interval = settings.worker.watchdog {
            out.because(.watchdogMissed(interval))
            leave(.failed(.watchdog), end: nil, at: now, &out)
            return
        }
        // Before the deadline is looked at: who is ready at that very instant is in time.
        settleReadiness(at: now, &out)
        if case .starting = life, startupUntil <= now {
            let last = [startup, readiness, implied].compactMap { $0?.lastReason }.first
            out.because(.startupDeadlinePassed(settings.worker.startupDeadline, last))
            leave(.failed(.startupDeadline), end: nil, at: now, &out)
            return
        }
        askWhatIsDue(at: now, &out)
    }

    /// What a start has at least behind a gap: where its own deadline was the armed one, the gap is counted from there,
    /// and nothing would be left of it.
    static let afterGap: Duration = .seconds(1)

    /// The clock made a gap: attempts under way say nothing, and what was late through it gets its time again.
    mutating func thaw(_ gap: Duration, at now: Instant, _ out: inout Decisions) {
        switch life {
        case .preparing(let until):
            life = .preparing(until: max(until + gap, now + Self.afterGap))
        case .starting, .ready, .unready:
            let generation = generation
            for kind in ProbeKind.allCases {
                with(kind) { probe in
                    if case .asking = probe.phase {
                        out.worker(generation, .abandon(kind, attempt: probe.attempt))
                        probe.voidAttempt(pace: .beforeReady, at: now)
                    }
                    // Ask anew a moment later: what the worker has to say now is behind the gap in its own queue.
                    probe.delay(to: now + .milliseconds(100))
                }
            }
            startupDeadline = max(startupDeadline + gap, now + Self.afterGap)
            extendedDeadline = extendedDeadline.map { $0 + gap }
            if watchdogAt != nil { watchdogAt = settings.worker.watchdog.map { now + $0 } }
        case .leaving(var plan):
            // A gap never extends a stop; but nobody ran whom KILL could end. SIGCONT alone, which anybody may send, is none.
            guard plan.phase == .killing, gap > .zero else { return }
            plan.beginKilling(at: now)
            life = .leaving(plan)
        case .sweeping(var sweep):
            guard sweep.graceUntil == nil, gap > .zero else { return }
            sweep.unkillableAt = max(sweep.unkillableAt, now + Self.unkillableInStop)
            life = .sweeping(sweep)
        case .spawning, .gone: break
        }
    }

    /// Makes the attempts that are due.
    mutating func askWhatIsDue(at now: Instant, _ out: inout Decisions) {
        guard isInService else { return }
        let generation = generation
        for kind in ProbeKind.allCases {
            with(kind) { probe in
                guard let attempt = probe.attemptDue(at: now) else { return }
                out.worker(generation, .ask(kind, attempt: attempt, probe.settings))
            }
        }
    }

    /// Ends all probes; answers under way are abandoned.
    mutating func endProbes(_ out: inout Decisions) {
        let generation = generation
        for kind in ProbeKind.allCases {
            with(kind) { probe in
                if let attempt = probe.end() { out.worker(generation, .abandon(kind, attempt: attempt)) }
            }
        }
        aliveAt = nil
        watchdogAt = nil
    }

    private mutating func take(
        _ kind: ProbeKind, attempt: Int, _ outcome: ProbeOutcome, isShared: Bool, at now: Instant,
        _ out: inout Decisions
    ) {
        if isShared, let probe = probe(kind), probe.settings.method.asksWorkersAddress {
            // It says nothing (CONTRACT section 4, socket mode); a late one not even that this attempt is over.
            if attempt == probe.attempt { with(kind) { $0.voidAttempt(pace: .failing, at: now) } }
            return
        }
        var taken = false
        let refused = connection?.isBad == true
        let pace: Probe.Pace =
            switch life {
            case .unready: kind == .liveness ? .steady : .failing
            case .ready: .steady
            case .preparing, .spawning, .starting, .leaving, .sweeping, .gone: .beforeReady
            }
        with(kind) { taken = $0.take(outcome, attempt: attempt, pace: pace, at: now) }
        guard taken, let probe = probe(kind) else { return }
        if case .failed(let reason) = outcome, kind != .connection || probe.failuresInARow == 1 {
            out.report(
                .probeFailed(
                    generation, kind, reason: reason, consecutive: probe.failuresInARow,
                    beforeReady: firstReadyAt == nil))
        }
        switch kind {
        case .startup, .connection: break
        case .readiness:
            if probe.isGood { readinessGood = true } else if probe.isBad { readinessGood = false }
        case .liveness:
            guard probe.isBad else { break }
            out.because(.livenessFailed(probe.lastReason ?? "no answer", probe.failuresInARow))
            leave(.failed(.liveness), end: nil, at: now, &out)
            return
        }
        let before = isReady
        settleReadiness(at: now, &out)
        // Just ready: the pace is the steady one from this answer on.
        if !before, isReady { with(kind) { $0.relax(at: now) } }
        if kind == .connection, probe.isGood {
            with(kind) { _ = $0.end() }
            if refused, life == .unready { tellUnready(&out) }
        }
        askWhatIsDue(at: now, &out)
    }

    /// The probe of this kind; the implied one stands for a readiness that was not given.
    private func probe(_ kind: ProbeKind) -> Probe? {
        switch kind {
        case .startup: startup
        case .readiness: readiness ?? implied
        case .liveness: liveness
        case .connection: connection
        }
    }

    private mutating func with(_ kind: ProbeKind, _ body: (inout Probe) -> Void) {
        func change(_ probe: inout Probe?) {
            guard var value = probe else { return }
            body(&value)
            probe = value
        }
        switch kind {
        case .startup: change(&startup)
        case .readiness: if readiness != nil { change(&readiness) } else { change(&implied) }
        case .liveness: change(&liveness)
        case .connection: change(&connection)
        }
    }
}
