//  Performer.swift
//  Does what the machine asks for, one case per action; answers are enqueued, never called.
//  The families: Performer+Workers.swift, Performer+Probes.swift, Performer+Reports.swift. Read Daemon.swift first.

import Glibc
import NIOCore
import PanelindControl
import PanelindCore
import PanelindFront
import PanelindHTTP
import PanelindOutput
import PanelindSettings
import PanelindSystem
import PanelindTelemetry

/// The hands of the machine. Main thread only.
final class Performer: ActionPerformer {
    /// What is kept for one generation until `forget`.
    struct Kept {
        var revision: Int
        /// Read by `prepare`, dropped at the spawn.
        var secrets: [NamedText] = []
        /// The kernel's OOM kills in our cgroup when it started.
        var oomKills: UInt64?
        /// Questions under way, by probe.
        var attempts: [ProbeKind: Attempt] = [:]
        /// The reading end of `probe.*.fd`.
        var readyWatch: Watch?
        /// Where it serves in front mode.
        var upstream: PanelindSettings.ListenAddress?
        /// Its last STATUS=.
        var status: String?
    }

    /// A question under way.
    enum Attempt {
        case asked(number: Int, ProbeAttempt)
        case command(number: Int, id: Int)
    }

    let loop: any EventLoop
    let children: Children
    let output: Output
    let board: HealthBoard
    let prober: Prober
    let listening: Listening
    let notifyPath: String?
    let oom: OOMEvidence
    /// systemd, where it listens.
    var notices: Notices?
    let environment: [String: String]
    let startedAt: Instant
    let metrics: Metrics
    /// As the metadata server has said it.
    var project: String?
    /// What is remembered for those who ask.
    let room = ControlRoom()
    /// The full settings of each configuration that is, or may be, in use.
    var settings: [Int: Settings]
    var revision = 0
    var kept: [Generation: Kept] = [:]
    /// Ended processes that had said MAINPID, until their end is written.
    var mainPIDs: [Generation: Int32] = [:]
    /// In front mode.
    var front: Front?
    /// Where workers make their sockets, by the user they drop to.
    var socketDirectories: [UInt32?: PrivateDirectory] = [:]
    var nextCommand = 0
    /// Why panelind stops by itself where the machine takes it for a requested stop: a code of CONTRACT section 3.
    var failure: Int32?
    /// Ctrl-C reached the worker by the terminal already: it is not repeated (CONTRACT section 2, worker.stdin).
    var terminalHasInterrupted = false
    /// Starts that wait until the loop has looked at its descriptors once more.
    var waitingStarts: [() -> Void] = []
    /// Set by the daemon: makes the loop look at its descriptors, then `runWaitingStarts`. Nil: there is no loop yet.
    var lookAround: (() -> Void)?
    /// Set by the daemon: removes what must not outlive the process, and ends it.
    var end: (Int32) -> Never = { code in Glibc.exit(code) }
    unowned let driver: Driver

    init(
        loop: any EventLoop, driver: Driver, children: Children, output: Output, board: HealthBoard,
        prober: Prober, listening: Listening, notifyPath: String?, environment: [String: String],
        settings: Settings, startedAt: Instant
    ) {
        self.loop = loop
        self.driver = driver
        self.children = children
        self.output = output
        self.board = board
        self.prober = prober
        self.listening = listening
        self.notifyPath = notifyPath
        self.environment = environment
        self.settings = [0: settings]
        self.startedAt = startedAt
        oom = OOMEvidence()
        metrics = Metrics(version: panelindVersion, revision: environment["K_REVISION"] ?? "")
    }

    /// The code that panelind ends with where the machine says this one.
    func exitCode(_ code: Int32) -> Int32 { code == 0 ? failure ?? 0 : code }

    func perform(_ action: Action, at now: Instant) {
        switch action {
        case .worker(let generation, let what): perform(what, of: generation, at: now)
        case .publish(let snapshot): board.publish(snapshot)
        case .report(let report): write(report)
        // The machine's own deadline, within the budget, ends a flush into a slow sink.
        case .flush: output.flush(by: now + .seconds(3600))
        case .suspendSelf: SignalSource.suspendSelf()
        case .exit(let code): end(code)
        case .front(let action): front?.perform(action)  // In direct and socket mode the kernel's queue holds.
        case .notify(let notice): tellService(notice, at: now)
        }
    }

    func decided(_ step: Step) {
        metrics.take(step)
        countDown(step)
        room.take(step, wall: Clock.wallNanoseconds())
        guard output.configuration.level == .debug else { return }
        output.log(OwnRecord(.debug, event: "step", message: step.line(since: startedAt)))
    }

    /// The settings that this generation was started with.
    func settings(of generation: Generation) -> Settings? {
        kept[generation].flatMap { settings[$0.revision] }
    }

    /// Enqueues news of a worker.
    func tell(_ generation: Generation, _ news: WorkerEvent) { driver.enqueue(.worker(generation, news)) }
}
