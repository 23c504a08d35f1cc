//  Worker+Life.swift
//  A worker's start and its readiness: prepared, spawned, ready, unready, and its leader's end.
//  Read after Worker.swift.

extension Worker {
    /// Begins its life. Called once.
    mutating func begin(at now: Instant, _ out: inout Decisions) {
        startupDeadline = now + settings.worker.startupDeadline
        if settings.worker.needsPreparation {
            life = .preparing(until: startupDeadline)
            out.worker(generation, .prepare(revision: settings.revision))
        } else {
            life = .spawning(leave: nil)
            out.worker(generation, .spawn(revision: settings.revision))
        }
    }

    /// The deadline fired: does whatever is due.
    mutating func tick(isShared: Bool, at now: Instant, _ out: inout Decisions) {
        switch life {
        case .preparing(let until):
            guard until <= now else { return }
            prepareFailed(StartFailure(.other, "cannot prepare worker \(generation): no answer in time"), &out)
        case .starting, .ready, .unready: tickProbes(isShared: isShared, at: now, &out)
        case .leaving: advancePlan(at: now, &out)
        case .sweeping: tickSweep(at: now, &out)
        case .spawning, .gone: break
        }
    }

    mutating func prepared(at now: Instant, _ out: inout Decisions) {
        switch life {
        case .preparing:
            life = .spawning(leave: nil)
            out.worker(generation, .spawn(revision: settings.revision))
        case .spawning, .starting, .ready, .unready, .leaving, .sweeping, .gone:
            break  // The answer came after its deadline, or twice.
        }
    }

    mutating func prepareFailed(_ failure: StartFailure, _ out: inout Decisions) {
        switch life {
        case .preparing:
            end(without: failure, requested: false, &out)
        case .spawning, .starting, .ready, .unready, .leaving, .sweeping, .gone:
            break  // The answer came after its deadline, or twice.
        }
    }

    mutating func spawnFailed(_ failure: StartFailure, _ out: inout Decisions) {
        switch life {
        case .spawning(let leave):
            end(without: failure, requested: leave != nil, &out)
        case .preparing, .starting, .ready, .unready, .leaving, .sweeping, .gone:
            break  // The answer came twice.
        }
    }

    mutating func spawned(pid: Int32, at now: Instant, _ out: inout Decisions) {
        switch life {
        case .spawning(let leave):
            self.pid = pid
            spawnedAt = now
            startupDeadline = now + settings.worker.startupDeadline
            life = .starting
            out.report(.workerStarted(generation, pid: pid))
            if let leave {
                self.leave(leave.reason, end: leave.end, at: now, &out)
                if leave.kills, let end = leave.end { kill(end: end, at: now, &out) }
                return
            }
            // What `prepare` took is not of the startup deadline.
            if settings.worker.needsPreparation { extendFirstStart(at: now, &out) }
            if settings.worker.readiness == nil, case .alive(let duration) = settings.worker.impliedReadiness {
                aliveAt = now + duration
            }
            startup?.begin(at: now)
            if startupPassed { beginReadiness(at: now) }
            askWhatIsDue(at: now, &out)
        case .preparing, .starting, .ready, .unready, .leaving, .sweeping, .gone:
            break  // The answer came twice.
        }
    }

    /// systemd waits as long as the first start may take.
    func extendFirstStart(at now: Instant, _ out: inout Decisions) {
        guard life == .starting, generation.number == 1 else { return }
        out.actions.append(.notify(.extendTimeout(startupUntil - now + settings.stop.budget)))
    }

    /// The leader is gone. A death always wins over whatever a probe says.
    mutating func exited(
        _ status: ExitStatus, _ use: ResourceUse, oom: Bool, at now: Instant, _ out: inout Decisions
    ) {
        switch life {
        case .starting, .ready, .unready:
            let killedByKernel = oom && status == .signal(.kill, coreDumped: false)
            let cause: ExitCause
            switch status {
            case .code: cause = .exit
            case .signal: cause = killedByKernel ? .oom : .signal
            }
            setEnding(status, use, cause, requested: false, at: now)
            endProbes(&out)
            out.because(.leaderGone)
            killRest(unkillableAt: now + Self.unkillableAfter, at: now, &out)
        case .leaving(let plan):
            leaderLeft(plan, status, use, oom: oom, at: now, &out)
        case .spawning, .preparing, .sweeping, .gone:
            break  // Its end was reported already, or it is one that KILL did not end in time.
        }
    }

    /// Compares what is known of readiness with the state, and takes the step between them.
    mutating func settleReadiness(at now: Instant, _ out: inout Decisions) {
        switch life {
        case .starting:
            if !startupPassed, startupIsGood {
                startupPassed = true
                if let attempt = startup?.end() { out.worker(generation, .abandon(.startup, attempt: attempt)) }
                beginReadiness(at: now)
            }
            guard startupPassed, readinessIsGood(at: now) else { return }
            becomeReady(at: now, &out)
        case .unready:
            guard readinessIsGood(at: now) else { return }
            becomeReady(at: now, &out)
        case .ready(let since):
            guard !readinessIsGood(at: now) else { return }
            longestReady = max(longestReady, now - since)
            life = .unready
            tellUnready(&out)
        case .preparing, .spawning, .leaving, .sweeping, .gone:
            break
        }
    }

    /// Says that it is unready, and why; again where the reason is another one now.
    func tellUnready(_ out: inout Decisions) {
        let reason = whyUnready
        out.because(connection?.isBad == true ? .connectionRefused(reason) : .readinessFailed(reason))
        out.report(.workerUnready(generation, reason: reason))
    }

    private mutating func becomeReady(at now: Instant, _ out: inout Decisions) {
        life = .ready(since: now)
        out.because(.becameReady)
        out.report(.workerReady(generation, after: now - spawnedAt))
        guard firstReadyAt == nil else { return }
        firstReadyAt = now
        aliveAt = nil
        liveness?.begin(at: now)
        watchdogAt = settings.worker.watchdog.map { now + $0 }
    }

    private var startupIsGood: Bool { startup.map { passes($0) } ?? true }

    /// CONTRACT section 4: a given probe decides alone, else the worker's own notifications, else the implied one. But a
    /// worker that takes no connection serves nobody (decision 0011).
    private func readinessIsGood(at now: Instant) -> Bool {
        if connection?.isBad == true { return false }
        if let readiness { return readiness.settings.method.isAsked ? readinessGood : passes(readiness) }
        if let notifiedReady { return notifiedReady }
        switch settings.worker.impliedReadiness {
        case .ask: return readinessGood
        case .alive(let duration): return now >= spawnedAt + duration
        }
    }

    private func passes(_ probe: Probe) -> Bool {
        switch probe.settings.method {
        case .http, .tcp, .exec: probe.isGood
        case .notify: notifiedReady == true
        case .log: logSeen
        case .descriptor: descriptorSeen
        }
    }

    private var whyUnready: String {
        if let connection, connection.isBad { return connection.lastReason ?? "no answer" }
        if settings.worker.readiness?.method == .notify || (readiness == nil && notifiedReady == false) {
            return "the worker said that it does not serve"
        }
        return (readiness ?? implied)?.lastReason ?? "no answer"
    }

    private mutating func beginReadiness(at now: Instant) {
        readiness?.begin(at: now)
        if notifiedReady == nil { implied?.begin(at: now) }
    }

    mutating func setEnding(
        _ status: ExitStatus?, _ use: ResourceUse, _ cause: ExitCause, requested: Bool, at now: Instant
    ) {
        ending = Ending(
            pid: pid, status: status, cause: cause, failure: nil, use: use, uptime: now - spawnedAt,
            wasReady: firstReadyAt != nil, readyFor: readyFor(at: now), requested: requested)
    }

    /// It ends before a process was made.
    mutating func end(without failure: StartFailure?, requested: Bool, _ out: inout Decisions) {
        let cause: ExitCause =
            switch failure?.kind {
            case .notFound, .notExecutable: .notFound
            case .noProcess, .other: requested ? .requested : .exit
            case nil: .requested
            }
        ending = Ending(
            pid: 0, status: nil, cause: cause, failure: failure, use: ResourceUse(), uptime: .zero, wasReady: false,
            readyFor: .zero, requested: requested)
        life = .gone
        out.worker(generation, .forget)
    }
}
