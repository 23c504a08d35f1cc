//  Checker+Actions.swift
//  Judges the actions of one step in their order, then what stands after it.
//  Read Checker.swift first.

import PanelindCore

extension Checker {
    func judgeActions(_ step: Step, _ kernel: Kernel) {
        var mayPublish = true
        for action in step.actions {
            switch action {
            case .front(.route(let new)):
                require(mayPublish, .publishedFirst, at: step.at, "a route follows another action")
                route = new
            case .publish(let new):
                require(mayPublish, .publishedFirst, at: step.at, "a snapshot follows another action")
                publish(new, at: step.at)
            case .notify: break
            case .front(let action):
                mayPublish = false
                note(action, step)
            case .worker(let generation, let action):
                mayPublish = false
                judge(action, for: generation, step, kernel)
            case .report(let report):
                mayPublish = false
                judge(report, step)
            case .flush, .suspendSelf: mayPublish = false
            case .exit(let code): judgeExit(code, step, kernel)
            }
        }
    }

    private func publish(_ new: HealthSnapshot, at now: Instant) {
        if let old = snapshot {
            require(
                new.generation >= old.generation && new.generation <= old.generation + 1, .generations, at: now,
                "g\(new.generation) was published after g\(old.generation)")
            require(
                new.restarts == old.restarts || (new.restarts == old.restarts + 1 && unplanned > 0), .restarts, at: now,
                "\(new.restarts) was published after \(old.restarts) with \(unplanned) unplanned ends")
            if new.restarts > old.restarts { unplanned = 0 }
            replaces = new.generation > old.generation ? Generation(new.generation) : replaces
        }
        snapshot = new
    }

    private func judge(_ action: WorkerAction, for generation: Generation, _ step: Step, _ kernel: Kernel) {
        if index(generation) == nil { begin(generation, step, kernel) }
        guard let i = index(generation) else { return }
        require(
            !records[i].isForgotten, .goneIsSilent, at: step.at, "\(generation) is gone and was told \(action)")
        switch action {
        case .prepare(let revision): records[i].revision = revision
        case .spawn(let revision):
            records[i].revision = revision
            records[i].isSpawnAsked = true
            judgeStart(generation, step, kernel)
        case .signal(let signal, _):
            switch step.event {
            case .operator(.pass), .operator(.suspend), .operator(.resume): break
            default:
                judgeSignal(generation, i, step)
                records[i].isLeaving = true
            }
            if signal == .kill { records[i].killedAt = records[i].killedAt ?? step.at }
        case .sweep(let signal, let sparingGroup):
            records[i].isLeaving = true
            // Of an end outside a drain clients learn by the death itself, and who can asks the next worker.
            let isDue = (stopAt != nil || records[i].isDrainAsked) && records[i].killedAt == nil
            require(
                !isDue || signal != .kill || sparingGroup || records[i].isCut || records[i].exitHandled, .cutFirst,
                at: step.at, "\(generation) is killed and its clients were not told")
            if signal == .kill, !sparingGroup { records[i].killedInStep = steps }
            if signal == .kill { records[i].killedAt = records[i].killedAt ?? step.at }
        case .ask(let kind, let attempt, _):
            let k = Self.number(kind)
            require(
                records[i].asking[k] == 0, .oneQuestion, at: step.at,
                "\(generation) \(kind) \(attempt) is asked while \(records[i].asking[k]) is not answered")
            require(
                Int32(attempt) == records[i].attempts[k] + 1, .oneQuestion, at: step.at,
                "\(generation) \(kind) \(attempt) follows \(records[i].attempts[k])")
            if kind == .connection {
                require(
                    records[i].isDoubted, .oneQuestion, at: step.at,
                    "\(generation) \(kind) \(attempt) is asked, and nobody was refused")
            }
            records[i].asking[k] = Int32(attempt)
            records[i].attempts[k] = Int32(attempt)
        case .abandon(let kind, let attempt):
            let k = Self.number(kind)
            if records[i].asking[k] == Int32(attempt) { records[i].asking[k] = 0 }
        case .forget: forget(generation, i, step, kernel)
        }
    }

    /// The first that is heard of a generation is that it shall start.
    private func begin(_ generation: Generation, _ step: Step, _ kernel: Kernel) {
        require(
            generation.number == records.count + 1, .generations, at: step.at,
            "\(generation) follows g\(records.count)")
        records.append(Record())
        judgeStart(generation, step, kernel)
        if let notBefore, reloads[generation] != true {
            require(
                step.at >= notBefore, .backoff, at: step.at,
                "\(generation) starts \((notBefore - step.at).text) too early")
        }
        notBefore = nil
    }

    private func judgeStart(_ generation: Generation, _ step: Step, _ kernel: Kernel) {
        let now = step.at
        require(stopAt == nil && policyCode == nil, .intentionalStop, at: now, "\(generation) starts")
        var others = 0
        for (i, record) in records.enumerated() where i != generation.number - 1 && !record.isForgotten {
            others += 1
            // Beside it may live the one it is to replace, or the one whose successor it follows.
            let isOnTrial = reloads[generation] == true
            require(
                isOnTrial || record.isPredecessor, .oneWorker, at: now,
                "\(generation) starts beside g\(i + 1)")
        }
        require(others <= 1, .oneWorker, at: now, "\(generation) is a third worker")
        for process in kernel.processes where process.generation != generation && process.isAlive {
            guard let i = index(process.generation), records[i].isForgotten, !process.isSleeping else { continue }
            require(
                records[i].isLeftBehind && isKilled(process, i), .emptyTree, at: now,
                "\(generation) starts while pid \(process.pid) of \(process.generation) lives")
        }
    }

    private func isKilled(_ process: SimulatedProcess, _ i: Int) -> Bool {
        process.isKilled || records[i].killedInStep == steps
    }

    private func forget(_ generation: Generation, _ i: Int, _ step: Step, _ kernel: Kernel) {
        records[i].isForgotten = true
        for newer in records.indices where newer > i && !records[newer].isForgotten && !records[newer].isLeaving {
            // The older one died while its successor was on trial, which takes over with its settings.
            guard reloads[Generation(newer + 1)] == true else { continue }
            settings = configurations[records[newer].revision] ?? settings
            notBefore = nil
        }
        for process in kernel.processes where process.generation == generation && process.isAlive {
            require(
                isKilled(process, i), .killFollows, at: step.at,
                "\(generation) is forgotten and pid \(process.pid) was not sent KILL")
            require(
                records[i].isLeftBehind, .survivorsReported, at: step.at,
                "\(generation) is forgotten and nothing is said of pid \(process.pid), which lives")
        }
        for pid in records[i].killedSeen where records[i].killedReported.count < 64 {
            require(
                records[i].killedReported.contains(pid), .survivorsReported, at: step.at,
                "\(generation) is forgotten and nothing is said of pid \(pid), which was killed")
        }
    }

    private func judge(_ report: Report, _ step: Step) {
        switch report {
        case .workerReady(let generation, _):
            guard let i = index(generation) else { return }
            records[i].saysReady = true
            records[i].hasBeenReady = true
            require(
                records[i].hasEvidence && !records[i].exitHandled, .readyIsTrue, at: step.at,
                "\(generation) is ready and nothing says so")
        case .workerUnready(let generation, _):
            if let i = index(generation) { records[i].saysReady = false }
        case .probeFailed(let generation, .readiness, _, let consecutive, _):
            guard let i = index(generation), judge(of: i) == .answers else { return }
            let worker = configurations[records[i].revision]?.worker
            var limit = worker?.readiness?.failures
            if limit == nil, case .ask(let implied)? = worker?.impliedReadiness { limit = implied.failures }
            if let limit, consecutive >= limit { records[i].hasEvidence = false }
        case .workerExited(let generation, let ending, let delay):
            guard let i = index(generation) else { return }
            records[i].exitReports += 1
            require(
                records[i].exitReports == 1, .exitReported, at: step.at,
                "the end of \(generation) is reported \(records[i].exitReports) times")
            require(
                ending.requested || ending.cause != .requested, .exitReported, at: step.at,
                "the end of \(generation) was wanted and is reported as if it was not")
            if !ending.requested, let delay { notBefore = step.at + delay }
        case .survivorsKilled(let generation, let killed):
            if let i = index(generation) { records[i].killedReported.append(contentsOf: killed.map(\.pid)) }
        case .survivorsLeft(let generation, _):
            if let i = index(generation) { records[i].isLeftBehind = true }
        case .reloadBegin(let generation): beginReload(generation)
        case .reloadEnd(let generation, nil):
            if reloads[generation] == true, let i = index(generation) {
                settings = configurations[records[i].revision] ?? settings
                failures = 0
                for older in 0..<i {
                    records[older].isLeaving = true
                    records[older].isPredecessor = true
                }
            }
            reloads[generation] = nil
        case .reloadEnd(let generation, .some): reloads[generation] = nil
        case .probeFailed, .workerStarted, .workerBackoff, .workerFailed, .drainBegin, .drainEnd, .clockGap,
            .panelindStopped:
            break
        }
    }

    private func beginReload(_ generation: Generation) {
        guard let offered else { return }
        let serves = records.contains { $0.hasBeenReady && !$0.exitHandled && !$0.isForgotten && !$0.isLeaving }
        let overlaps = settings.overlaps && offered.overlaps && serves
        reloads[generation] = overlaps
        guard !overlaps else { return }
        settings = offered
        failures = 0
        notBefore = nil
        unplanned = 0
        nextIsWanted = true
    }

    private func judgeExit(_ code: Int32, _ step: Step, _ kernel: Kernel) {
        exitCode = code
        let due = policyCode ?? 0
        require(
            code == due && (stopAt != nil || policyCode != nil), .exitCode, at: step.at,
            "the code is \(code) where \(due) is due")
        for process in kernel.processes where process.isAlive {
            require(
                process.isKilled, .killFollows, at: step.at, "pid \(process.pid) lives and was not sent KILL")
            require(
                process.isSleeping, .nothingLeft, at: step.at, "pid \(process.pid) of \(process.generation) lives")
        }
        for (i, record) in records.enumerated() {
            require(
                record.exitReports == 1 || !record.isSpawned, .exitReported, at: step.at,
                "the end of g\(i + 1) was not reported")
        }
        judgeBudget(at: step.at)
    }

    private func judgeBudget(at now: Instant) {
        guard let stopAt else { return }
        require(
            now <= max(stopAt + stopBudget, thawedAt + Self.thawSlack), .stopBudget, at: now,
            "it has lasted \((now - stopAt).text) with a budget of \(stopBudget.text)")
    }

    /// What must be true between any two steps.
    func judgeStanding(_ step: Step, _ deadline: Instant?, _ kernel: Kernel) {
        let now = step.at
        if exitCode != nil { return }
        judgeBudget(at: now)
        if step.event == .time, let deadline {
            require(deadline >= now, .deadlineAhead, at: now, "the next is \((now - deadline).text) ago")
        }
        var mustCome = !hasStarted
        var someIsReady = false
        var someIsLeft = false
        for (i, record) in records.enumerated() where !record.isForgotten {
            someIsLeft = true
            if record.isSpawnAsked, !record.isSpawned { mustCome = true }
            if record.saysReady, !record.isLeaving, record.hasEvidence {
                someIsReady = someIsReady || kernel.leader(of: Generation(i + 1)) != nil
            }
            if let killedAt = record.killedAt {
                require(
                    now <= max(killedAt, thawedAt) + Self.killingLasts || stopAt != nil, .leavingEnds, at: now,
                    "g\(i + 1) was sent KILL \((now - killedAt).text) ago")
            }
        }
        require(
            deadline != nil || mustCome || step.to == .ready || step.to == .unready
                || (step.to == .failed && !someIsLeft && policyCode == nil), .wayOut, at: now,
            "nothing is due in \(step.to)")
        if let generation = replaces {
            replaces = nil
            nextIsWanted = nextIsWanted && reloads[generation] == true
            require(
                unplanned == 0 || reloads[generation] == true, .restarts, at: now,
                "\(generation) replaces one that ended unasked, which is not counted")
        }
        judgeFront(step)
        let isReady = snapshot?.isReady ?? false
        require(!isReady || someIsReady, .readyIsTrue, at: now, "/ready is 200 and no worker is known to be ready")
        switch route {
        case .forward(let generation):
            require(isReady, .readyIsTrue, at: now, "requests are sent to \(generation) while /ready is 503")
            judgeRoute(generation, at: now)
        case .lastCall(let generation):
            require(!isReady, .readyIsTrue, at: now, "a last call is made while /ready is 200")
            judgeRoute(generation, at: now)
        case .hold, .refuse:
            require(!isReady, .readyIsTrue, at: now, "requests are not sent on while /ready is 200")
        }
    }

    private func judgeRoute(_ generation: Generation, at now: Instant) {
        let record = index(generation).map { records[$0] }
        require(
            record.map { $0.isSpawned && !$0.exitHandled && !$0.isForgotten } ?? false, .routeLives, at: now,
            "requests are sent to \(generation)")
    }
}
