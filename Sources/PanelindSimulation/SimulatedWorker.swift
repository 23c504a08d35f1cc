//  SimulatedWorker.swift
//  How one simulated worker behaves: when it serves, hangs, flaps, speaks, forks, sleeps, and how it ends.
//  A plan draws a behaviour for each generation; the world plays it. Read after Kernel.swift.

import PanelindCore

/// What a worker does by itself and how it answers a stop; the default is a healthy one.
public struct Behaviour: Sendable {
    /// One process that the leader forks.
    public struct Child: Sendable {
        /// After the leader's start.
        public var after: Duration
        /// It stays in the leader's group; else it leaves by setsid.
        public var isInGroup = true
        /// TERM does not end it.
        public var ignoresStop = false
        /// It ends when the leader does.
        public var followsLeader = false
        /// It falls into uninterruptible sleep when it is told to stop; nil: never, zero: for ever.
        public var sleeps: Duration?

        /// Makes a child that ends at TERM.
        public init(after: Duration) { self.after = after }
    }

    /// From the start until it serves; nil: never.
    public var upAfter: Duration? = .milliseconds(300)
    /// It ends by itself, so long after its start, like this.
    public var ends: (after: Duration, status: ExitStatus, oom: Bool)?
    /// It takes so long to end once told to; nil: it is deaf.
    public var stopsWithin: Duration? = .milliseconds(50)
    /// The code it ends with when it is told to; nil: the signal's default action.
    public var stopCode: Int32? = 0
    /// It answers nothing from `after` on, for so long (nil: for ever).
    public var hangs: (after: Duration, lasts: Duration?)?
    /// Its readiness comes and goes at this interval.
    public var flaps: Duration?
    /// It notifies of READY by itself, though no probe asks for that.
    public var notifies = false
    /// Unasked words on its notify socket.
    public var words: [(after: Duration, Notification)] = []
    /// It stops pinging the watchdog after so long.
    public var pingsUntil: Duration?
    /// It falls into uninterruptible sleep after so long; zero lasting: for ever.
    public var sleeps: (after: Duration, lasts: Duration)?
    /// It accepts no connection of the front's from `after` on, for so long (nil: for ever), though it may answer its
    /// probes.
    public var refuses: (after: Duration, lasts: Duration?)?
    /// Its descendants.
    public var children: [Child] = []

    /// Makes a healthy worker.
    public init() {}

    /// Draws a worker that may be faulty in every way.
    static func draw(_ random: inout RandomNumbers) -> Behaviour {
        var it = Behaviour()
        it.upAfter = random.chance(120) ? nil : random.duration(0...(random.chance(200) ? 20_000 : 800))
        if random.chance(500) {
            let after = random.duration(random.pick(0...200, 0...5000, 10_000...90_000))
            let status: ExitStatus
            switch random.below(6) {
            case 0: status = .code(0)
            case 1: status = .code(1)
            case 2: status = .code(random.pick(3, 126, 127, 255))
            case 3: status = .signal(Signal(number: 11), coreDumped: true)
            case 4: status = .signal(.kill, coreDumped: false)
            default: status = .signal(.abort, coreDumped: false)
            }
            it.ends = (after, status, random.chance(300))
        }
        it.stopsWithin = random.chance(200) ? nil : random.duration(0...(random.chance(200) ? 12_000 : 300))
        it.stopCode = random.chance(300) ? nil : Int32(random.pick(0, 0, 1))
        if random.chance(250) {
            it.hangs = (random.duration(0...30_000), random.chance(500) ? nil : random.duration(100...20_000))
        }
        if random.chance(150) { it.flaps = random.duration(200...15_000) }
        it.notifies = random.chance(250)
        while random.chance(250), it.words.count < 4 {
            let word: Notification
            switch random.below(7) {
            case 0: word = .ready
            case 1: word = .reloading
            case 2: word = .stopping
            case 3: word = .status("busy")
            case 4: word = .watchdog
            case 5: word = .watchdogTrigger
            default: word = .extendTimeout(random.duration(0...20_000))
            }
            it.words.append((random.duration(0...20_000), word))
        }
        if random.chance(200) { it.pingsUntil = random.duration(0...40_000) }
        if random.chance(80) {
            it.sleeps = (random.duration(0...40_000), random.chance(400) ? .zero : random.duration(10...15_000))
        }
        if random.chance(60) {
            it.refuses = (
                random.duration(random.pick(0...0, 0...30_000)), random.chance(500) ? nil : random.duration(1...9000)
            )
        }
        while random.chance(400), it.children.count < 5 {
            var child = Child(after: random.duration(0...3000))
            child.isInGroup = random.chance(600)
            child.ignoresStop = random.chance(300)
            child.followsLeader = random.chance(300)
            if random.chance(120) { child.sleeps = random.chance(400) ? .zero : random.duration(1...12_000) }
            it.children.append(child)
        }
        return it
    }
}

/// A step of a worker's script, played while its process can run.
enum ScriptStep {
    case up
    case end(ExitStatus, oom: Bool)
    case hang(Bool)
    case refuse(Bool)
    case flap
    case say(Notification)
    case ping
    case sleep(Duration)
    case fork(Behaviour.Child)
    /// It was told to stop, and has done so.
    case stopped(ExitStatus)
    /// It answers a request.
    case answer(RequestID, attempt: Int, UpstreamNews)

    /// Left out once the world is healed.
    var isFault: Bool {
        switch self {
        case .end, .hang(true), .refuse(true), .flap, .say, .sleep, .fork: true
        case .up, .hang(false), .refuse(false), .ping, .stopped, .answer: false
        }
    }
}

/// What is true of one worker beyond its processes.
struct SimulatedWorker {
    let generation: Generation
    let settings: SupervisorSettings
    let leader: Int
    let behaviour: Behaviour
    let startedAt: Instant
    var isUp = false
    var isHung = false
    var isFlappedOff = false
    var isRefusing = false
    var isStopping = false
    /// Steps that came while it was stopped or asleep.
    var postponed: [ScriptStep] = []
    /// It sent READY=1 once: its words decide from there.
    var hasSaidReady = false
    /// Since when a request would fail; nil while one would succeed.
    var deafSince: Instant?
    /// Since when the front has been refused connections, without one that would have been taken between.
    var refusedSince: Instant?

    /// It would answer, were its process running.
    var wouldServe: Bool { isUp && !isHung && !isFlappedOff && !isStopping }

    /// Readiness is what it says on its notify socket.
    var speaksReadiness: Bool {
        behaviour.notifies || settings.worker.readiness?.method == .notify || settings.worker.startup?.method == .notify
    }
}
