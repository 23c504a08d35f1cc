//  World.swift
//  Virtual time: an agenda of happenings, the machine's one timer, frozen clocks, and the order in which they come.
//  The real Driver and Supervisor run in it; World+Actions.swift and World+Workers.swift answer them.
//  Read Agenda.swift, Kernel.swift and FaultPlan.swift first.

import PanelindCore

/// Something that is going to happen.
enum Happening {
    /// News reaches the machine.
    case tell(Event)
    /// A process is made, or not.
    case make(Generation, revision: Int)
    /// A process ends.
    case die(process: Int, ExitStatus, oom: Bool)
    /// A process handles a signal, once it can run.
    case handle(process: Int, Signal)
    /// A worker's leader goes on with its script.
    case play(process: Int, ScriptStep)
    /// A process falls asleep in the kernel, or wakes.
    case sleep(process: Int, Bool)
    case wish(Wish)
    /// A client comes.
    case client
    /// It goes away.
    case leave(RequestID)
    /// The front hears of the connection that a request is on.
    case upstream(RequestID, attempt: Int, UpstreamNews)

    /// Whether it goes on while panelind alone is frozen.
    var isOutside: Bool {
        switch self {
        case .die, .handle, .play, .sleep: true
        case .tell, .make, .wish, .client, .leave, .upstream: false
        }
    }
}

/// One simulated machine with one panelind.
public final class World: ActionPerformer {
    let plan: FaultPlan
    private(set) var now = Instant.zero
    var random: RandomNumbers
    /// The clients' own: they come as they come, whatever else is drawn.
    var clientRandom: RandomNumbers
    var agenda = Agenda<Happening>()
    var kernel = Kernel()
    var workers: [SimulatedWorker] = []
    var front: Front
    /// What was published last.
    private(set) var snapshot: HealthSnapshot?
    let checker: Checker
    let frontChecker: FrontChecker
    /// What was reached, if somebody wants to know.
    let coverage: Coverage?
    var configurations: [Int: SupervisorSettings]
    /// Faults have stopped.
    private(set) var isHealed = false
    /// A healthy worker is replaced by another beside it: no request may be harmed.
    private(set) var losesNobody = false
    private(set) var exitCode: Int32?
    private(set) var steps = 0
    private var driver: Driver
    private(set) var frozenUntil = Instant.zero
    private var allAreFrozen = false
    /// The machine's, after the last step; asked for once a step, since it is the dearest question.
    private var deadline: Instant?
    /// The machine's public state after the last step.
    private var state = State.starting
    private var armed: Instant?
    private var firesAt: Instant?
    /// The lines of the transcript; nil: nobody reads it.
    private var lines: [String]?
    private let writesActions: Bool

    /// Makes the world of a plan.
    /// - Parameters:
    ///   - transcript: whether lines are kept.
    ///   - actions: whether the lines include the actions.
    ///   - coverage: where to count what was reached.
    public init(_ plan: FaultPlan, transcript: Bool = false, actions: Bool = false, coverage: Coverage? = nil) {
        self.plan = plan
        self.coverage = coverage
        random = RandomNumbers(seed: plan.seed ^ 0x5EED_0F_AC75)
        clientRandom = RandomNumbers(seed: plan.seed ^ 0xC11E_17)
        checker = Checker(plan.settings)
        let admission = plan.admission(of: plan.settings)
        front = Front(admission)
        frontChecker = FrontChecker(admission)
        configurations = [plan.settings.revision: plan.settings]
        lines = transcript ? [] : nil
        writesActions = actions
        // The clock is the world's own; the driver needs it before the world is whole.
        let clock = Clock()
        driver = Driver(Supervisor(plan.settings, seed: plan.seed)) { clock.now }
        self.clock = clock
        driver.performer = self
        for (at, wish) in plan.wishes { agenda.plan(.wish(wish), at: .zero + at) }
        if let traffic = plan.traffic { agenda.plan(.client, at: .zero + traffic) }
    }

    private final class Clock {
        var now = Instant.zero
    }
    private let clock: Clock

    /// The machine as it is.
    var supervisor: Supervisor { driver.supervisor }
    /// Nobody can do more for this world.
    private var isOver: Bool { exitCode != nil || checker.violation != nil || frontChecker.violation != nil }

    /// Plays the whole plan.
    public func play() -> Verdict {
        run(until: .zero + plan.safety)
        if plan.checksLiveness, !isOver {
            heal()
            if !isOver { proveLiveness() }
        }
        return Verdict(
            seed: plan.seed, violation: checker.violation ?? frontChecker.violation, steps: steps,
            simulated: now - .zero, exitCode: exitCode,
            transcript: lines ?? [])
    }

    /// Goes on until then, or until panelind has exited, or the condition holds, or a law is broken.
    func run(until end: Instant, where condition: (World) -> Bool = { _ in false }) {
        while !isOver, !condition(self) {
            let event = agenda.next ?? end
            let timer = nextTimer() ?? end
            let frontTimer = front.firesAt.map { max($0, frozenUntil, now) } ?? end
            guard min(event, timer, frontTimer) < end else { return advance(to: end) }
            // What is readable already is handled before the timers (DESIGN section 2).
            if event <= timer, event <= frontTimer {
                guard let (happening, at) = agenda.take() else { continue }
                advance(to: at)
                if at < frozenUntil, allAreFrozen || !happening.isOutside {
                    agenda.plan(happening, at: frozenUntil)
                } else {
                    happen(happening)
                }
            } else if timer <= frontTimer {
                advance(to: timer)
                tell(.time)
            } else {
                advance(to: frontTimer)
                front.firesAt = nil
                front.deadline = nil
                frontTime()
            }
        }
    }

    private func advance(to instant: Instant) {
        now = max(now, instant)
        clock.now = now
    }

    /// When the timer fires, which may be late, and always after a thaw.
    private func nextTimer() -> Instant? {
        if deadline != armed {
            armed = deadline
            firesAt = deadline.map { $0 + random.duration(0...plan.answers.timerLate) }
        }
        return firesAt.map { max($0, frozenUntil, now) }
    }

    /// The machine hears this now.
    func tell(_ event: Event) {
        driver.enqueue(event)
        driver.run()
    }

    private func happen(_ happening: Happening) {
        switch happening {
        case .tell(let event):
            if case .worker(let generation, .exited) = event { reapLeader(of: generation) }
            tell(event)
        case .make(let generation, let revision): make(generation, revision: revision)
        case .die(let id, let status, let oom): die(id, status, oom: oom)
        case .handle(let id, let signal): handle(signal, by: id)
        case .play(let id, let step): play(step, by: id)
        case .sleep(let id, let sleeps): sleep(id, sleeps)
        case .wish(let wish): grant(wish)
        case .client: welcome()
        case .leave(let id): leave(id)
        case .upstream(let id, let attempt, let news): hear(id, attempt: attempt, news)
        }
    }

    private func grant(_ wish: Wish) {
        if isHealed { return }
        switch wish {
        case .tell(let wish):
            if case .reload(let new) = wish { configurations[new.revision] = new }
            tell(.operator(wish))
        case .freeze(let all, let duration): freeze(for: duration, all: all)
        case .burst(let count): welcome(count)
        case .signal(let signal):
            // Of two leaders either may be meant.
            let leaders = kernel.processes.filter { $0.isLeader && $0.isAlive }
            guard !leaders.isEmpty else { return }
            send(signal, to: leaders[random.below(leaders.count)].id)
        }
    }

    /// From now on and so long panelind does not run; nor does anything else, with `all`.
    func freeze(for duration: Duration, all: Bool) {
        frozenUntil = max(frozenUntil, now + duration)
        allAreFrozen = all
        checker.thawed(at: frozenUntil)
    }

    // MARK: the driver's performer

    /// Judges the step and writes it down.
    public func decided(_ step: Step) {
        guard exitCode == nil else { return }
        steps += 1
        deadline = driver.deadline
        state = step.to
        if lines != nil { write(step) }
        checker.decided(step, deadline: deadline, kernel: kernel)
        coverage?.note(step)
    }

    /// Plans the answer of an action, good or bad.
    public func perform(_ action: Action, at now: Instant) {
        guard exitCode == nil else { return }
        switch action {
        case .worker(let generation, let action): perform(action, for: generation)
        case .front(let action): perform(action)
        case .publish(let snapshot): self.snapshot = snapshot
        case .report(.reloadEnd(_, failure: nil)): useAdmission(plan.admission(of: checker.settings))
        case .notify(let notice):
            // Its socket is full; what it is told again was not lost.
            if notice != .kept, plan.place == .systemd, !isHealed, random.chance(20) {
                answer(.serviceBusy, within: 0...1, canBeLost: false)
            }
        case .report: break
        case .flush: answer(.flushed, within: 0...20, canBeLost: true)
        case .suspendSelf:
            // SIGSTOP to itself; somebody continues it. The workers were stopped by signals of their own.
            freeze(for: random.duration(100...8000), all: false)
            agenda.plan(.wish(.tell(.resume)), at: frozenUntil)
        case .exit(let code):
            exitCode = code
            guard !front.exchanges.isEmpty else { return }
            checker.broke(.oneOutcome, at: now, "\(front.exchanges.count) clients have no outcome when panelind exits")
        }
    }

    private func write(_ step: Step) {
        lines?.append(step.line(since: .zero))
        guard writesActions else { return }
        for action in step.actions { lines?.append("        \(action)") }
    }

    // MARK: the liveness phase

    /// Faults stop: what hangs answers again, new workers are healthy, answers are prompt.
    private func heal() {
        // Wishes that waited for a thaw may bring the next freeze.
        while now <= frozenUntil, !isOver { run(until: frozenUntil + .milliseconds(1)) }
        guard !isOver else { return }
        isHealed = true
        healWorkers()
    }

    /// The worker becomes ready, a reload succeeds, a stop ends; or panelind has given up.
    private func proveLiveness() {
        guard checker.stopAt == nil, checker.policyCode == nil else {
            // A stop or the policy's own end is under way.
            run(until: now + .seconds(400))
            if !isOver { checker.broke(.becomesReady, at: now, "panelind does not exit in \(state)") }
            return
        }
        awaitReady("after the faults")
        guard !isOver else { return }
        if state == .failed {
            tell(.operator(.restart))
            awaitReady("after a restart")
            guard !isOver else { return }
        }
        // A reload whose `prepare` was never answered ends by its deadline.
        let longest = configurations.values.map(liveness).max() ?? .zero
        run(until: now + longest) { $0.checker.reloads.isEmpty }
        // Longer than any predecessor needs to leave.
        run(until: now + .seconds(60))
        guard !isOver else { return }
        var settings = supervisor.settings
        settings.revision += 1000
        configurations[settings.revision] = settings
        let before = snapshot?.generation ?? 0
        losesNobody = settings.overlaps
        tell(.operator(.reload(settings)))
        run(until: now + liveness(settings)) {
            $0.state == .ready && $0.supervisor.settings.revision == settings.revision
        }
        guard !isOver else { return }
        if supervisor.settings.revision != settings.revision || (snapshot?.generation ?? 0) <= before
            || state != .ready
        {
            checker.broke(.becomesReady, at: now, "a reload of a healthy worker ended in \(state)")
        }
        run(until: now + settings.stop.drain)
        losesNobody = false
        guard !isOver else { return }
        tell(.operator(.stop(by: "the simulation")))
        run(until: now + settings.stop.budget + .seconds(1))
        if !isOver { checker.broke(.stopBudget, at: now, "panelind does not exit in \(state)") }
    }

    private func awaitReady(_ when: String) {
        run(until: now + liveness(supervisor.settings)) {
            $0.state == .ready || $0.state == .failed
        }
        guard !isOver, state != .ready, state != .failed else { return }
        checker.broke(.becomesReady, at: now, "panelind is \(state) \(when)")
    }

    /// One worker may fail to start once more, has to be killed, waits its backoff, and the next one starts.
    private func liveness(_ settings: SupervisorSettings) -> Duration {
        settings.worker.startupDeadline * 2 + settings.stop.budget * 2 + settings.restart.maxDelay * 2 + .seconds(120)
    }
}
