//  FaultPlan.swift
//  Everything that one seed decides: settings, faults of answers, workers, wishes, traffic, and how long it goes on.
//  Tests write plans by hand for their stories. Read SimulatedWorker.swift and Platform.swift first.

import PanelindCore

/// How badly actions are answered; chances of a thousand.
public struct AnswerFaults: Sendable {
    /// An answer comes late.
    public var late = 0
    /// By so many milliseconds.
    public var lateBy = 1...1
    /// An answer never comes, where the machine promises to survive that.
    public var lost = 0
    /// An answer comes a second time.
    public var twice = 0
    /// `prepare` fails.
    public var prepareFails = 0
    /// `spawn` fails.
    public var spawnFails = 0
    /// Starts are answered in the same turn, as a failing exec is.
    public var isInstant = false
    /// A timer fires late by up to so many milliseconds.
    public var timerLate = 0

    /// Makes prompt and complete answers.
    public init() {}
}

/// The plan of one simulated world.
public struct FaultPlan: Sendable {
    /// What every number of the world is drawn from.
    public var seed: UInt64
    /// Where it is.
    public var place = Place.wild
    /// What the machine is started with.
    public var settings = SupervisorSettings()
    /// How actions are answered.
    public var answers = AnswerFaults()
    /// The workers, by generation; those after them are drawn or healthy.
    public var workers: [Behaviour] = []
    /// Whether workers that are not listed are drawn from the seed.
    public var drawsWorkers = false
    /// What the platform and the operator want, and when.
    public var wishes: [(at: Duration, wish: Wish)] = []
    /// The mean time between two requests of the clients; nil: none come.
    public var traffic: Duration?
    /// Some requests are dropped, or kill their worker.
    public var troublesClients = false
    /// What the front bounds, by the revision of the settings; the defaults where none is listed.
    public var admissions: [Int: AdmissionSettings] = [:]
    /// How long faults go on.
    public var safety: Duration = .seconds(60)
    /// Whether a liveness phase follows: faults stop, the worker has to become ready, then the stop has to end.
    public var checksLiveness = false

    /// Makes a plan without faults.
    public init(seed: UInt64) { self.seed = seed }

    /// What the front bounds under these settings.
    func admission(of settings: SupervisorSettings) -> AdmissionSettings {
        var it = admissions[settings.revision] ?? AdmissionSettings()
        it.hold = settings.hold
        return it
    }

    /// How the worker of this generation behaves.
    func behaviour(of generation: Int) -> Behaviour {
        if generation <= workers.count { return workers[generation - 1] }
        guard drawsWorkers else { return Behaviour() }
        var random = RandomNumbers(seed: seed ^ (UInt64(generation) &* 0x9E37_79B9))
        return Behaviour.draw(&random)
    }

    /// The same plan with its first workers listed, and healthy ones behind them.
    mutating func listWorkers() {
        workers = (1...40).map { behaviour(of: $0) }
        drawsWorkers = false
    }

    /// Draws the plan of a seed.
    /// - Parameter place: nil: the seed's own.
    public static func draw(seed: UInt64, place: Place? = nil) -> FaultPlan {
        var random = RandomNumbers(seed: seed)
        var plan = FaultPlan(seed: seed)
        plan.place = place ?? Place.draw(seed: seed)
        plan.settings = drawSettings(&random, plan.place, running: nil)
        plan.drawsWorkers = true
        plan.troublesClients = true
        plan.checksLiveness = true
        plan.safety = random.duration(random.pick(5000...20_000, 20_000...120_000, 60_000...400_000))
        if random.chance(700) {
            plan.answers.late = random.pick(0, 50, 300)
            plan.answers.lateBy = 1...random.pick(5, 200, 3000)
            plan.answers.lost = random.pick(0, 20, 200)
            plan.answers.twice = random.pick(0, 50, 200)
            plan.answers.prepareFails = random.pick(0, 100, 300)
            plan.answers.spawnFails = random.pick(0, 0, 50, 300)
            plan.answers.isInstant = random.chance(300)
        }
        plan.answers.timerLate = random.pick(0, 1, 8)
        if random.chance(600) { plan.traffic = random.duration(random.pick(50...300, 500...3000)) }
        plan.wishes = Platform.drawWishes(&random, plan.place, of: plan.settings, until: plan.safety)
        plan.wishes += plan.place.drawWishes(&random, until: plan.safety)
        for revision in 0...plan.wishes.count where random.chance(600) {
            plan.admissions[revision] = AdmissionSettings.draw(&random, hold: plan.settings.hold)
        }
        return plan
    }

    /// Draws settings as the validation lets them through.
    /// - Parameter running: those of the running panelind, for a reload: what it cannot change stays.
    static func drawSettings(
        _ random: inout RandomNumbers, _ place: Place, running: SupervisorSettings?
    ) -> SupervisorSettings {
        var it = SupervisorSettings()
        it.mode = running?.mode ?? place.drawMode(&random)
        it.adoptsOrphans = running?.adoptsOrphans ?? place.adoptsOrphans(&random)
        it.watchdogPing = running.map(\.watchdogPing) ?? (random.chance(200) ? random.duration(1000...15_000) : nil)
        it.worker = drawWorker(&random, mode: it.mode)
        switch it.mode {
        case .front: it.overlaps = !random.chance(300)
        case .socket:
            it.overlaps =
                it.worker.readiness.map { !Self.mayAskTheSharedSocket($0) } ?? false
                && !(it.worker.startup.map { Self.mayAskTheSharedSocket($0) } ?? false)
        case .direct: it.overlaps = false
        }
        it.restart.policy = random.pick(.always, .always, .always, .onFailure, .never)
        it.restart.delay = random.duration(random.pick(50...300, 250...250, 500...4000))
        if random.chance(30) { it.restart.delay = .zero }
        it.restart.factor = random.pick(2, 1, 1.5, 3)
        it.restart.maxDelay = max(it.restart.delay, random.duration(random.pick(500...2000, 5000...30_000)))
        it.restart.jitter = random.pick(0.2, 0, 0.5, 1)
        it.restart.resetAfter = random.duration(random.pick(1000...5000, 60_000...60_000))
        it.restart.limit = random.chance(400) ? random.pick(0, 1, 3, 8) : nil
        if random.chance(300) { it.restart.permanentExitCodes = [3, 4, 126, 127] }
        if random.chance(200) { it.restart.successCodes = [0, 1] }
        it.restart.onGiveUp = random.pick(.exit, .hold)
        it.stop = drawStop(&random, mode: it.mode)
        it.hold = random.duration(1000...10_000)
        place.shape(&it, &random)
        return it
    }

    private static func drawStop(_ random: inout RandomNumbers, mode: ServeMode) -> StopSettings {
        var it = StopSettings()
        it.budget = random.duration(random.pick(1000...3000, 9000...9000, 25_000...25_000))
        let free = it.budget - StopSettings.reserve
        let freeMs = Int(free.nanoseconds / 1_000_000)
        it.delay = random.chance(400) ? random.duration(0...(freeMs / 3)) : .zero
        it.drain = mode == .front ? (it.budget - it.delay - StopSettings.reserve) * random.pick(2, 1, 0) / 3 : .zero
        it.grace = free - it.delay - it.drain
        if random.chance(300) {
            it.graceIsSet = true
            it.grace = it.grace * random.pick(1, 2, 3) / 4
        }
        it.target = random.pick(.group, .leader)
        if random.chance(250) {
            it.steps = [StopStep(.interrupt, wait: it.grace / 3), StopStep(.terminate)]
            if random.chance(400) { it.steps.insert(StopStep(.hangup, wait: it.grace / 4), at: 1) }
        }
        return it
    }

    private static func drawWorker(_ random: inout RandomNumbers, mode: ServeMode) -> WorkerSettings {
        var it = WorkerSettings()
        it.needsPreparation = random.chance(300)
        if random.chance(250) { it.watchdog = random.duration(500...10_000) }
        if random.chance(250) { it.startup = drawProbe(&random, .startup) }
        if random.chance(500) { it.readiness = drawProbe(&random, .readiness) }
        if random.chance(400) { it.liveness = drawProbe(&random, .liveness) }
        switch mode {
        case .front, .socket:
            var implied = ProbeSettings(random.chance(800) ? .http("/ready") : .tcp(""))
            implied.passesBelow500 = true
            it.impliedReadiness = .ask(implied)
        case .direct:
            it.impliedReadiness = random.chance(500) ? .ask(ProbeSettings(.tcp(""))) : .alive(.seconds(1))
        }
        // A healthy worker must be able to meet it: its boot, the delays, and the attempts that have to pass.
        let needed = [it.startup, it.readiness].compactMap { $0 }.reduce(Duration.milliseconds(1500)) {
            $0 + $1.delay + .milliseconds(1100) * $1.successes
        }
        it.startupDeadline = max(needed, random.duration(random.pick(500...3000, 5000...60_000)))
        return it
    }

    private static func drawProbe(_ random: inout RandomNumbers, _ kind: ProbeKind) -> ProbeSettings {
        let method: ProbeMethod =
            switch random.below(kind == .liveness ? 4 : kind == .readiness ? 6 : 7) {
            case 0: .http("/ready")
            case 1: .tcp("")
            case 2: .tcp("10.0.0.1:80")
            case 3: .exec(["check"])
            case 4: .notify
            case 5: .descriptor(3)
            default: .log("ready")
            }
        var it = ProbeSettings(method)
        it.period = random.duration(random.pick(200...2000, 10_000...10_000))
        it.timeout = random.duration(random.pick(50...500, 1000...1000, 1000...5000))
        it.failures = random.pick(1, 3, 5)
        it.successes = kind == .readiness ? random.pick(1, 1, 3) : 1
        it.delay = random.chance(300) ? random.duration(0...3000) : .zero
        return it
    }

    /// Two generations would answer for each other: no overlap (CONTRACT section 5, Reload).
    static func mayAskTheSharedSocket(_ probe: ProbeSettings) -> Bool {
        switch probe.method {
        case .http, .tcp: true
        case .exec, .notify, .log, .descriptor: false
        }
    }
}
