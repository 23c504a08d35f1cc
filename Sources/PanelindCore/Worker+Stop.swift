//  Worker+Stop.swift
//  How a worker leaves: its stop plan step by step, its leader's end, and the sweep of what the leader left behind.
//  Read after StopPlan.swift and Worker.swift.

extension Worker {
    /// Outside a stop of panelind, how long a tree that KILL does not end is waited for.
    static let unkillableAfter: Duration = .seconds(10)
    /// Inside one: as much of the reserve, so that the rest is left for the flush.
    static let unkillableInStop: Duration = .milliseconds(250)

    /// Makes it leave. A later wish only binds the plan to its end, unless it is a stop's.
    mutating func leave(_ reason: LeaveReason, end stopEnd: Instant?, at now: Instant, _ out: inout Decisions) {
        switch life {
        case .preparing:
            end(without: nil, requested: true, &out)
        case .spawning(let wish):
            life = .spawning(leave: Leave(reason: reason, end: stopEnd ?? wish?.end, kills: wish?.kills ?? false))
        case .starting, .ready, .unready:
            let serving = isReady || life == .unready
            longestReady = readyFor(at: now)
            let graceful = reason == .stop || reason == .replaced
            let plan = StopPlan(
                reason, settings.stop, serving: serving && graceful, drains: settings.mode == .front, end: stopEnd,
                at: now)
            endProbes(&out)
            life = .leaving(plan)
            if reason == .stop { out.report(.drainBegin(generation, budget: settings.stop.budget)) }
            advancePlan(at: now, &out)
        case .leaving(var plan):
            guard let stopEnd else { return }
            plan.bind(to: stopEnd)
            life = .leaving(plan)
            // Behind a clock gap the time of a KILL may seem over, and it was sent just now: the timer sees to that.
            if plan.phase != .killing { advancePlan(at: now, &out) }
        case .sweeping(var sweep):
            guard let stopEnd else { return }
            sweep.graceUntil = sweep.graceUntil.map { min($0, stopEnd - StopSettings.reserve) }
            sweep.unkillableAt = min(sweep.unkillableAt, stopEnd - StopSettings.reserve + Self.unkillableInStop)
            life = .sweeping(sweep)
        case .gone:
            break
        }
    }

    /// Kills it and its tree now.
    mutating func kill(end stopEnd: Instant, at now: Instant, _ out: inout Decisions) {
        leave(.stop, end: stopEnd, at: now, &out)
        switch life {
        case .spawning(let wish):
            life = .spawning(leave: Leave(reason: wish?.reason ?? .stop, end: stopEnd, kills: true))
        case .leaving(var plan):
            if plan.phase != .killing { beginKilling(&plan, at: now, &out) }
        case .sweeping(let sweep):
            guard sweep.graceUntil != nil else { return }
            // Behind a clock gap its time may be over, and nothing was sent KILL yet.
            killRest(unkillableAt: max(sweep.unkillableAt, now + Self.unkillableInStop), at: now, &out)
        case .preparing, .starting, .ready, .unready, .gone:
            break
        }
    }

    /// The front says that nothing, or nothing but streams, is in flight here.
    mutating func drained(_ rule: Rule, at now: Instant, _ out: inout Decisions) {
        switch life {
        case .leaving(var plan):
            guard plan.phase == .drain || plan.phase == .lastDrain else { return }
            sendNextSignal(&plan, because: rule, at: now, &out)
        case .preparing, .spawning, .starting, .ready, .unready, .sweeping, .gone:
            break  // The drain is over already.
        }
    }

    /// Takes the plan as far as the time allows.
    mutating func advancePlan(at now: Instant, _ out: inout Decisions) {
        while case .leaving(var plan) = life, plan.deadline <= now {
            switch plan.phase {
            case .delay:
                guard plan.drain > .zero else {
                    sendNextSignal(&plan, because: plan.delay > .zero ? .delayOver(plan.delay) : nil, at: now, &out)
                    continue
                }
                plan.beginDrain()
                life = .leaving(plan)
                if plan.delay > .zero { out.because(.delayOver(plan.delay)) }
                out.actions.append(.front(.reportDrain(generation)))
            case .drain:
                plan.beginLastDrain()
                life = .leaving(plan)
            case .lastDrain:
                sendNextSignal(&plan, because: .drainOver(plan.drain), at: now, &out)
            case .signalled:
                sendNextSignal(&plan, because: nil, at: now, &out)
            case .killing:
                guard now < killingEnds(plan) else { return giveUpKilling(plan, at: now, &out) }
                plan.pollKilling(at: min(now + .milliseconds(20), killingEnds(plan)))
                life = .leaving(plan)
                out.worker(generation, .sweep(.kill, sparingGroup: false))
            }
        }
    }

    private mutating func sendNextSignal(
        _ plan: inout StopPlan, because rule: Rule?, at now: Instant, _ out: inout Decisions
    ) {
        if let rule { out.because(rule) }
        let first = plan.drains
        guard let signal = plan.nextSignal(at: now) else {
            out.because(.graceOver(now - plan.signalledAt(or: now)))
            return beginKilling(&plan, at: now, &out)
        }
        life = .leaving(plan)
        if first, plan.reason == .stop, settings.mode == .front {
            out.report(.drainEnd(generation, rule ?? .drained))
        }
        out.worker(generation, .signal(signal, plan.target))
    }

    private mutating func beginKilling(_ plan: inout StopPlan, at now: Instant, _ out: inout Decisions) {
        if plan.answersEveryone { out.actions.append(.front(.cut(generation))) }
        plan.beginKilling(at: now)
        plan.pollKilling(at: now + .milliseconds(20))
        life = .leaving(plan)
        out.worker(generation, .sweep(.kill, sparingGroup: false))
    }

    /// When even KILL has had its time.
    private func killingEnds(_ plan: StopPlan) -> Instant {
        let atLast = plan.killedSince + Self.unkillableAfter
        // After a clock gap KILL may have gone late: it has its time all the same.
        return plan.isBoundToStop ? min(max(plan.killBy, plan.killedSince) + Self.unkillableInStop, atLast) : atLast
    }

    /// Not even KILL ended the leader: it sleeps in the kernel, or panelind may not signal it. It is left behind.
    private mutating func giveUpKilling(_ plan: StopPlan, at now: Instant, _ out: inout Decisions) {
        setEnding(nil, ResourceUse(), cause(of: plan), requested: plan.reason.isRequested, at: now)
        let leader = Survivor(pid: pid, command: "", uninterruptible: true)
        leaveBehind(left.contains { $0.pid == pid } ? left : [leader], &out)
    }

    /// The leader ended while it was leaving.
    mutating func leaderLeft(
        _ plan: StopPlan, _ status: ExitStatus, _ use: ResourceUse, oom: Bool, at now: Instant,
        _ out: inout Decisions
    ) {
        setEnding(status, use, cause(of: plan), requested: plan.reason.isRequested, at: now)
        out.because(.leaderGone)
        if plan.reason == .stop, settings.mode != .front || plan.drains {
            out.report(.drainEnd(generation, .leaderGone))
        }
        let unkillableAt = plan.isBoundToStop ? plan.killBy + Self.unkillableInStop : now + Self.unkillableAfter
        guard plan.reason.isRequested, case .signalled(let step) = plan.phase else {
            return killRest(unkillableAt: max(unkillableAt, now + Self.unkillableInStop), at: now, &out)
        }
        // The rest of the tree keeps what is left of the grace (CONTRACT section 3); what had no signal gets it now.
        life = .sweeping(
            Sweep(
                graceUntil: plan.killAt, nextPass: now + passInterval(killing: false),
                unkillableAt: max(unkillableAt, plan.killAt + Self.unkillableInStop),
                grace: plan.killAt - plan.signalledAt(or: now)))
        out.worker(generation, .sweep(plan.steps[step].signal, sparingGroup: plan.target == .group))
    }

    private func cause(of plan: StopPlan) -> ExitCause {
        if case .failed(let cause) = plan.reason { return cause }
        return .requested
    }

    /// Kills what the leader left behind.
    mutating func killRest(unkillableAt: Instant, at now: Instant, _ out: inout Decisions) {
        life = .sweeping(
            Sweep(
                graceUntil: nil, nextPass: now + passInterval(killing: true), unkillableAt: unkillableAt,
                grace: .zero))
        out.worker(generation, .sweep(.kill, sparingGroup: false))
    }

    /// How soon to look again. News of a reaped orphan comes by itself where panelind adopts them.
    private func passInterval(killing: Bool) -> Duration {
        killing ? .milliseconds(20) : settings.adoptsOrphans ? .milliseconds(250) : .milliseconds(50)
    }

    /// One pass of the sweep is done.
    mutating func swept(left: [Survivor], killed fresh: [Survivor], at now: Instant, _ out: inout Decisions) {
        for survivor in fresh where !killed.contains(where: { $0.pid == survivor.pid }) && killed.count < 64 {
            killed.append(survivor)
        }
        self.left = left
        switch life {
        case .sweeping(let sweep):
            if left.isEmpty {
                out.because(.treeEmpty)
                finish(&out)
            } else if sweep.graceUntil == nil, left.allSatisfy(\.uninterruptible) {
                leaveBehind(left, &out)
            }
        case .preparing, .spawning, .starting, .ready, .unready, .leaving, .gone:
            break  // A pass of the final KILL before the leader is reaped, or one that came late.
        }
    }

    /// Descendants were reaped: perhaps the last ones.
    mutating func orphansReaped(at now: Instant, _ out: inout Decisions) {
        guard case .sweeping(let sweep) = life else { return }
        out.worker(generation, .sweep(sweep.graceUntil == nil ? .kill : nil, sparingGroup: false))
    }

    /// Handles whatever of the sweep is due.
    mutating func tickSweep(at now: Instant, _ out: inout Decisions) {
        guard case .sweeping(var sweep) = life else { return }
        if let graceUntil = sweep.graceUntil, graceUntil <= now {
            // First: after a clock gap both may be over, and nothing was sent KILL yet.
            out.because(.graceOver(sweep.grace))
            killRest(unkillableAt: max(sweep.unkillableAt, now + Self.unkillableInStop), at: now, &out)
        } else if sweep.unkillableAt <= now {
            leaveBehind(left, &out)
        } else if sweep.nextPass <= now {
            sweep.nextPass = now + passInterval(killing: sweep.graceUntil == nil)
            life = .sweeping(sweep)
            out.worker(generation, .sweep(sweep.graceUntil == nil ? .kill : nil, sparingGroup: false))
        }
    }

    /// KILL did not end these in time. A last one, whose answer nobody hears, is for what was forked since the last pass.
    private mutating func leaveBehind(_ survivors: [Survivor], _ out: inout Decisions) {
        out.because(.unkillable)
        out.report(.survivorsLeft(generation, survivors))
        // Its connections may stay open for as long as it sleeps.
        out.actions.append(.front(.cut(generation)))
        out.worker(generation, .sweep(.kill, sparingGroup: false))
        finish(&out)
    }

    /// No process is left, or none that can be ended.
    private mutating func finish(_ out: inout Decisions) {
        if !killed.isEmpty { out.report(.survivorsKilled(generation, killed)) }
        life = .gone
        out.worker(generation, .forget)
    }
}
