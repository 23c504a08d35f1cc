//  World+Workers.swift
//  Plays the workers: makes them, lets them serve, speak, fork, sleep and die, and hands them signals.
//  Read SimulatedWorker.swift and World.swift first.

import PanelindCore

extension World {
    func worker(_ generation: Generation) -> Int? { workers.lastIndex { $0.generation == generation } }

    private func worker(ledBy id: Int) -> Int? { workers.lastIndex { $0.leader == id } }

    /// A process is made, or not, and the machine hears of it.
    func make(_ generation: Generation, revision: Int) {
        if !isHealed, random.chance(plan.answers.spawnFails) {
            let kind: StartFailure.Kind = random.pick(.noProcess, .other, .other, .notFound, .notExecutable)
            let news = Event.worker(generation, .spawnFailed(StartFailure(kind, "cannot start worker: planned")))
            if random.chance(plan.answers.twice) { answer(news, within: 0...5000, canBeLost: false) }
            return tell(news)
        }
        let behaviour = isHealed ? Behaviour() : plan.behaviour(of: generation.number)
        let id = kernel.make(
            generation, isLeader: true, isInGroup: true, ignoresStop: behaviour.stopsWithin == nil)
        workers.append(
            SimulatedWorker(
                generation: generation, settings: configurations[revision] ?? plan.settings, leader: id,
                behaviour: behaviour, startedAt: now, deafSince: now))
        schedule(behaviour, of: id)
        guard let pid = kernel.process(id)?.pid else { return }
        if !isHealed, random.chance(plan.answers.twice) {
            answer(.worker(generation, .spawned(pid: pid)), within: 0...5000, canBeLost: false)
        }
        tell(.worker(generation, .spawned(pid: pid)))
    }

    private func schedule(_ behaviour: Behaviour, of id: Int) {
        func plan(_ step: ScriptStep, after: Duration) { agenda.plan(.play(process: id, step), at: now + after) }
        if let after = behaviour.upAfter { plan(.up, after: after) }
        if let (after, status, oom) = behaviour.ends { plan(.end(status, oom: oom), after: after) }
        if let (after, lasts) = behaviour.hangs {
            plan(.hang(true), after: after)
            if let lasts { plan(.hang(false), after: after + lasts) }
        }
        if let (after, lasts) = behaviour.refuses {
            plan(.refuse(true), after: after)
            if let lasts { plan(.refuse(false), after: after + lasts) }
        }
        if let flaps = behaviour.flaps { plan(.flap, after: flaps) }
        for (after, word) in behaviour.words { plan(.say(word), after: after) }
        if let (after, lasts) = behaviour.sleeps { plan(.sleep(lasts), after: after) }
        for child in behaviour.children { plan(.fork(child), after: child.after) }
        if let worker = workers.last, worker.settings.worker.watchdog != nil { plan(.ping, after: .zero) }
    }

    /// One step of a leader's script; it waits while the process is stopped or asleep.
    func play(_ step: ScriptStep, by id: Int) {
        guard let process = kernel.process(id), process.isAlive, let i = worker(ledBy: id) else { return }
        if step.isFault, isHealed { return }
        guard process.isRunning else {
            workers[i].postponed.append(step)
            return
        }
        switch step {
        case .up:
            guard !workers[i].isUp else { return }
            workers[i].isUp = true
            announce(i)
        case .end(let status, let oom): return die(id, status, oom: oom)
        case .hang(let hangs):
            workers[i].isHung = hangs
            if !hangs { goOn(id) }
        case .refuse(let refuses):
            workers[i].isRefusing = refuses
            if !refuses { workers[i].refusedSince = nil }
        case .flap:
            workers[i].isFlappedOff.toggle()
            if workers[i].speaksReadiness, workers[i].isUp {
                say(workers[i].isFlappedOff ? .reloading : .ready, i)
            }
            if let interval = workers[i].behaviour.flaps { agenda.plan(.play(process: id, .flap), at: now + interval) }
        case .say(let word): say(word, i)
        case .ping: ping(i)
        case .sleep(let lasts):
            sleep(id, true)
            if lasts > .zero { agenda.plan(.sleep(process: id, false), at: now + lasts) }
        case .fork(let child): fork(child, of: workers[i].generation)
        case .answer(let id, let attempt, let news):
            if workers[i].isHung { workers[i].postponed.append(step) } else { answerClient(id, attempt: attempt, news) }
            return
        case .stopped(let status): return die(id, status, oom: false)
        }
        settleService(i)
    }

    /// It serves, and says so in every way that somebody listens to.
    private func announce(_ i: Int) {
        let worker = workers[i].settings.worker
        let speaks = workers[i].speaksReadiness || workers[i].hasSaidReady
        if speaks, !workers[i].isFlappedOff { say(.ready, i) }
        for method in [worker.startup?.method, worker.readiness?.method] {
            switch method {
            case .log: tellSoon(.logMatched, i)
            case .descriptor: tellSoon(.descriptor(ready: true), i)
            case .http, .tcp, .exec, .notify, nil: break
            }
        }
    }

    private func say(_ word: Notification, _ i: Int) {
        if word == .ready { workers[i].hasSaidReady = true }
        tellSoon(.notified(word), i)
    }

    private func tellSoon(_ news: WorkerEvent, _ i: Int) {
        // Sockets keep their order: every word of a worker takes equally long.
        agenda.plan(.tell(.worker(workers[i].generation, news)), at: now + .microseconds(100))
    }

    private func ping(_ i: Int) {
        guard let interval = workers[i].settings.worker.watchdog else { return }
        if let until = workers[i].behaviour.pingsUntil, now > workers[i].startedAt + until, !isHealed { return }
        if !workers[i].isHung { say(.watchdog, i) }
        agenda.plan(.play(process: workers[i].leader, .ping), at: now + interval / 3)
    }

    private func fork(_ child: Behaviour.Child, of generation: Generation) {
        let id = kernel.make(
            generation, isLeader: false, isInGroup: child.isInGroup, ignoresStop: child.ignoresStop,
            followsLeader: child.followsLeader)
        guard let lasts = child.sleeps else { return }
        let at = now + random.duration(0...20_000)
        agenda.plan(.sleep(process: id, true), at: at)
        if lasts > .zero { agenda.plan(.sleep(process: id, false), at: at + lasts) }
    }

    /// A process falls asleep in the kernel, or wakes to what came meanwhile.
    func sleep(_ id: Int, _ sleeps: Bool) {
        guard let index = kernel.index(of: id), kernel.processes[index].isAlive else { return }
        // One that was killed never gets so far.
        if sleeps, kernel.processes[index].isKilled || isHealed { return }
        kernel.update(index) { $0.isSleeping = sleeps }
        if !sleeps {
            if kernel.processes[index].isKilled { return die(id, .signal(.kill, coreDumped: false), oom: false) }
            if kernel.processes[index].isRunning { goOn(id) }
        }
        if let i = worker(ledBy: id) { settleService(i) }
    }

    /// It can run again: what was put off happens now.
    private func goOn(_ id: Int) {
        guard let index = kernel.index(of: id) else { return }
        let signals = kernel.processes[index].pending
        kernel.update(index) { $0.pending = [] }
        for signal in signals { agenda.plan(.handle(process: id, signal), at: now) }
        guard let i = worker(ledBy: id) else { return }
        let steps = workers[i].postponed
        workers[i].postponed = []
        for step in steps { agenda.plan(.play(process: id, step), at: now) }
        settleService(i)
    }

    func send(_ signal: Signal, to id: Int) {
        guard let index = kernel.index(of: id) else { return }
        switch kernel.send(signal, to: index) {
        case .nothing: break
        case .dies(let status): agenda.plan(.die(process: id, status, oom: false), at: now + random.duration(0...4))
        case .handles: agenda.plan(.handle(process: id, signal), at: now)
        case .continues: goOn(id)
        }
        if let i = worker(ledBy: id) { settleService(i) }
    }

    /// What a running process does about a signal.
    func handle(_ signal: Signal, by id: Int) {
        guard let process = kernel.process(id), process.isAlive else { return }
        if signal == .user1 || signal == .user2 || signal == .windowChange || process.ignoresStop { return }
        guard process.isLeader, let i = worker(ledBy: id) else {
            agenda.plan(
                .die(process: id, .signal(signal, coreDumped: false), oom: false), at: now + random.duration(0...10))
            return
        }
        guard !workers[i].isStopping else { return }
        workers[i].isStopping = true
        settleService(i)
        sayGoodbye(i)
        let status: ExitStatus
        if signal == .abort {
            status = .signal(.abort, coreDumped: true)
        } else {
            status = workers[i].behaviour.stopCode.map { .code($0) } ?? .signal(signal, coreDumped: false)
        }
        agenda.plan(.play(process: id, .stopped(status)), at: now + (workers[i].behaviour.stopsWithin ?? .zero))
    }

    /// A process ends; a leader is a zombie until the machine hears of it.
    func die(_ id: Int, _ status: ExitStatus, oom: Bool) {
        guard let index = kernel.index(of: id), kernel.processes[index].isAlive, !kernel.processes[index].isSleeping
        else { return }
        let process = kernel.processes[index]
        kernel.end(index)
        guard process.isLeader, let i = worker(ledBy: id) else {
            kernel.reap(index)
            if plan.settings.adoptsOrphans, kernel.leader(of: process.generation)?.isAlive != true {
                agenda.plan(.tell(.worker(process.generation, .orphansReaped)), at: now + random.duration(0...5))
            }
            return
        }
        settleService(i)
        dropUpstream(process.generation)
        for child in kernel.processes where child.generation == process.generation && child.followsLeader {
            agenda.plan(
                .die(process: child.id, .signal(.hangup, coreDumped: false), oom: false),
                at: now + random.duration(0...200))
        }
        let use = ResourceUse(maxRSSBytes: 1 << 20)
        answer(.worker(process.generation, .exited(status, use, oom: oom)), within: 0...5, canBeLost: false)
    }

    func reapLeader(of generation: Generation) {
        guard let leader = kernel.leader(of: generation), !leader.isAlive, let index = kernel.index(of: leader.id)
        else { return }
        kernel.reap(index)
    }

    /// Faults stop, in leaders: other processes that sleep for ever go on so, and the machine has to live with it.
    func healWorkers() {
        for i in workers.indices {
            let id = workers[i].leader
            guard let process = kernel.process(id), process.isAlive else { continue }
            workers[i].isHung = false
            workers[i].isRefusing = false
            workers[i].refusedSince = nil
            workers[i].isFlappedOff = false
            if process.isSleeping { sleep(id, false) } else if process.isRunning { goOn(id) }
            if process.isStopped { send(.continue, to: id) }
            agenda.plan(.play(process: id, .up), at: now + .milliseconds(1))
            agenda.plan(.play(process: id, .ping), at: now)
            if workers[i].speaksReadiness || workers[i].hasSaidReady, workers[i].isUp { say(.ready, i) }
            settleService(i)
        }
    }

    /// Notes since when a request would fail.
    private func settleService(_ i: Int) {
        let serves = workers[i].wouldServe && kernel.process(workers[i].leader)?.isRunning == true
        workers[i].deafSince = serves ? nil : workers[i].deafSince ?? now
    }
}
