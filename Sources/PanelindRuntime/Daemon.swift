//  Daemon.swift
//  One run of panelind: opens what is listened on, wires the parts, starts the machine, turns the loop.
//  An event travels: a descriptor wakes the loop -> enqueue -> Driver -> Supervisor -> Performer. Read first here.

import Glibc
import NIOCore
import NIOPosix
import PanelindControl
import PanelindCore
import PanelindFront
import PanelindHTTP
import PanelindOutput
import PanelindSettings
import PanelindSystem

/// The daemon. Main thread only; ends the process by itself.
public final class Daemon {
    let request: SettingsRequest
    let driver: Driver
    let performer: Performer
    let output: Output
    let children: Children
    let signals: SignalSource
    let notifySocket: NotifySocket?
    /// Why there is none, if there is none.
    private let notifyRefused: SystemError?
    let serviceRequests: ServiceRequests
    var timer: DeadlineTimer?
    var sidecarServer: HTTPServer?
    private(set) lazy var desk = ControlDesk(self)
    let control: ControlSocket
    var watches: [Watch] = []
    var lastingWatches: [LastingWatch] = []
    var interrupts = 0
    var notifications = NotificationIntake()
    let hadTerminal = Terminal.isInput
    /// The worker reads the same terminal.
    let sharesTerminal: Bool

    /// Supervises until told to stop; never returns.
    ///
    /// Signals must be blocked already, on the first line of `main`.
    /// - Returns: only where nothing could be started: what to print, and the exit code of CONTRACT section 3.
    public static func run(_ request: SettingsRequest) -> (message: String, code: Int32) {
        Descriptors.ensureStandard()
        let surroundings = Surroundings.current
        let report = loadSettings(request, surroundings, .real)
        guard let settings = report.settings else { return (report.errorText(), report.runExitCode) }
        if settings.serve.mode == .front { Descriptors.raiseLimit() }
        var listening: Listening
        switch Listening.open(settings) {
        case .success(let opened): listening = opened
        case .failure(let error): return ("\(error)\n", 71)
        }
        let control: ControlSocket
        switch ControlSocket.open(settings.control) {
        case .success(let opened): control = opened
        case .failure(let error): return ("\(error)\n", 71)
        }
        let output: Output
        do {
            var configuration = OutputConfiguration(settings.log, terminal: Terminal.isOutput)
            if let problem = configuration.reachJournal() { listening.warnings.append(problem) }
            output = try Output(configuration)
            try output.start()
        } catch {
            return ("cannot write the log: \(error)\n", 71)
        }
        if let error = Children.reaperError { return ("cannot watch the worker: waitid says \(error)\n", 71) }
        if let shortage = Descriptors.shortage() { return ("\(shortage)\n", 71) }
        let signals: SignalSource
        do { signals = try SignalSource() } catch { return ("cannot watch signals: \(error)\n", 71) }
        let group = MultiThreadedEventLoopGroup.self
        group.withCurrentThreadAsEventLoop { loop in
            let daemon = Daemon(
                request, report, settings, surroundings.environment, listening, control, output, signals, loop)
            daemon.start(loop)
            // The daemon lives as long as the process: `exit` is the machine's last action.
            _ = Unmanaged.passRetained(daemon)
        }
        return ("", 70)
    }

    private init(
        _ request: SettingsRequest, _ report: SettingsReport, _ settings: Settings,
        _ environment: [String: String], _ listening: Listening, _ control: ControlSocket, _ output: Output,
        _ signals: SignalSource, _ loop: any EventLoop
    ) {
        self.control = control
        self.request = request
        self.output = output
        self.signals = signals
        sharesTerminal = settings.worker.stdin == .inherit
        let startedAt = Clock.now()
        children = Children(runToken: Self.token())
        do throws(SystemError) {
            notifySocket = try NotifySocket(sharedWithOtherUsers: !settings.worker.identity.isUnchanged)
            notifyRefused = nil
        } catch {
            notifySocket = nil
            notifyRefused = error
        }
        serviceRequests = ServiceRequests(environment, settings)
        var machine = settings.supervisorSettings(revision: 0)
        machine.adoptsOrphans = children.adoptsOrphans
        machine.watchdogPing = serviceRequests.watchdogPing
        machine.handOver(listening)
        let seed = UInt64(bitPattern: startedAt.nanoseconds) ^ UInt64(getpid()) << 32
        driver = Driver(Supervisor(machine, seed: seed), clock: Clock.now)
        let board = HealthBoard(
            version: panelindVersion, revision: environment["K_REVISION"], startedAt: startedAt, clock: Clock.now)
        performer = Performer(
            loop: loop, driver: driver, children: children, output: output, board: board,
            prober: Prober(loop: loop, version: panelindVersion), listening: listening,
            notifyPath: notifySocket?.path, environment: environment, settings: settings, startedAt: startedAt)
        driver.performer = performer
        performer.notices = Notices(environment) { why in
            output.log(OwnRecord(.warning, event: "notify_failed", message: why))
        }
        announce(report, settings, listening)
        makeFront(settings, listening, board, loop)
    }

    /// The first record, and what is worth knowing before anything happens.
    private func announce(_ report: SettingsReport, _ settings: Settings, _ listening: Listening) {
        let listens = listening.serve.map { "\($0.address)" } ?? settings.serve.directPort.map { "port \($0)" }
        let sidecar = listening.sidecar.map { "\($0.address)" }
        var message =
            "panelind \(panelindVersion) supervises \(settings.worker.command.map(\.description).joined(separator: " "))"
        message += " (\(settings.serve.mode.rawValue) mode, \(settings.platform.rawValue))"
        if !performer.isAtTerminal {
            if let listens { message += ", serving on \(listens)" }
            if let sidecar { message += ", health on \(sidecar)" }
        }
        performer.log(
            OwnRecord(
                .info, event: "panelind_started", message: message,
                fields: [
                    Field("version", .string(panelindVersion)), Field("pid", .int(Int64(getpid()))),
                    Field("mode", .string(settings.serve.mode.rawValue)),
                    Field("platform", .string(settings.platform.rawValue)),
                    Field("listen", listens.map { .string($0) } ?? .null),
                    Field("sidecar", sidecar.map { .string($0) } ?? .null),
                    Field("control", control.path.map { .string($0) } ?? .null),
                    Field("configuration", report.file.map { .string($0) } ?? .null),
                ]))
        welcome(settings, listens: listens, sidecar: sidecar)
        func warn(_ text: String, event: String = "warning") {
            output.log(OwnRecord(.warning, event: event, message: text))
        }
        let ownWarnings = serviceRequests.warnings + [control.warning].compactMap { $0 }
        for text in report.warnings + report.advice + listening.warnings + ownWarnings { warn(text) }
        if let refused = children.subreaperRefused {
            warn(
                "cannot become subreaper: \(SystemError(refused)); a descendant that leaves both its group and session"
                    + " and clears its environment is not found",
                event: "subreaper_refused")
        }
        if let notifyRefused {
            warn("cannot make a notify socket: \(notifyRefused); the worker's notifications are not heard")
        }
    }

    private func start(_ loop: any EventLoop) {
        let timer = DeadlineTimer(loop: loop) { [unowned self] in
            driver.enqueue(.time)
            turn()
        }
        self.timer = timer
        performer.end = { [unowned self] code in end(code) }
        driver.afterRun = { [unowned self] in
            // The machine takes the news in a run of its own, which arms the timer.
            if performer.sendNotices() { return driver.run() }
            self.timer?.arm(driver.supervisor.deadline)
            performer.room.settle()
        }
        // Before the worker: a READY=1 that came earlier would be announced by nothing.
        if let notifySocket, let error = SignalSource.announceInput(of: notifySocket.descriptor) {
            output.log(
                OwnRecord(
                    .warning, event: "notify_failed",
                    message: "cannot watch the notify socket: \(error); the worker's notifications are not heard"))
        }
        // The worker first: everything below is needed only when it has something to say.
        driver.enqueue(.operator(.start))
        turn()
        lastingWatches = [
            LastingWatch(signals.descriptor, loop: loop) { [unowned self] bytes in
                handle(SignalSource.parse(bytes.readableBytesView))
                turn()
            },
            LastingWatch(output.wakeDescriptor, loop: loop) { [unowned self] _ in
                for reply in output.takeReplies() { take(reply) }
                turn()
            },
        ]
        watchForStarts(loop)
        startFront()
        if let settings = performer.settings[0] { learnProject(settings) }
        startSidecar(loop)
        notifySocket?.removeAbandoned()
        if let listener = control.listener { desk.serve(listener, loop: loop) }
    }

    /// From here on a start waits for one look at the descriptors: a byte in a pipe of our own comes behind them.
    private func watchForStarts(_ loop: any EventLoop) {
        guard case .success(let pipe) = Pipes.makePipe() else { return }
        let (reading, writing) = pipe.release()
        watches.append(
            Watch(reading, loop: loop) { [unowned self] _ in
                performer.runWaitingStarts()
                turn()
            })
        performer.lookAround = {
            var byte: UInt8 = 0
            _ = write(writing, &byte, 1)
        }
    }

    private func startSidecar(_ loop: any EventLoop) {
        guard let listener = performer.listening.sidecar else { return }
        do throws(HTTPServer.Failure) {
            let sidecar = Sidecar(board: performer.board)
            sidecar.metrics = { [unowned self] in metricsPage() }
            sidecar.statusPage = { [unowned self] request in desk.pages.respond(to: request) }
            let server = try HTTPServer(
                descriptor: listener.descriptor, loop: loop, limits: .sidecar(besideFront: performer.front != nil),
                responder: sidecar)
            sidecarServer = server
            let bound = NIOLoopBound(self, eventLoop: loop)
            server.start().whenFailure { error in
                bound.value.cannotServe("sidecar", "\(error)")
                bound.value.turn()
            }
        } catch {
            cannotServe("sidecar", "\(error)")
            turn()
        }
    }

    /// Lets the machine take what was enqueued.
    func turn() { driver.run() }

    private func take(_ reply: OutputReply) {
        switch reply {
        case .matched(let generation): performer.tell(Generation(generation), .logMatched)
        case .flushed: driver.enqueue(.flushed)
        case .exitRecorded(let generation, let cause, let message, let tail):
            performer.metrics.exitRecorded(Generation(generation), cause: cause)
            performer.room.exitRecorded(generation: generation, cause: cause, message: message, lines: tail)
        case .dropped(let count): performer.noteDropped(count)
        case .ring(let id, let lines): desk.take(id, lines)
        }
    }

    /// SIGHUP: the configuration is read again; a bad one changes nothing.
    @discardableResult
    func reload() -> ReloadRefusal? {
        let report = loadSettings(request, .current, .real)
        func reject(_ errors: [String], needsRestart: Bool = false) -> ReloadRefusal {
            let why = errors.joined(separator: "; ")
            performer.log(
                OwnRecord(
                    .error, event: "config_rejected", message: "cannot reload: \(why)",
                    fields: [Field("errors", .strings(errors))]))
            performer.room.rejected(errors, at: Clock.now(), wall: Clock.wallNanoseconds())
            driver.enqueue(.operator(.reloadRefused(why)))
            return ReloadRefusal(errors: errors, needsRestart: needsRestart)
        }
        guard let settings = report.settings else { return reject(report.problems.map(\.message)) }
        let current = performer.settings[driver.supervisor.settings.revision]
        let fixed = current?.keysNeedingRestart(comparedTo: settings) ?? []
        guard fixed.isEmpty else {
            return reject(fixed.map { "\($0) needs a restart of panelind" }, needsRestart: true)
        }
        guard settings.serve.mode == current?.serve.mode else {
            return reject(["serve.mode needs a restart of panelind"], needsRestart: true)
        }
        performer.revision += 1
        performer.settings[performer.revision] = settings
        var machine = settings.supervisorSettings(revision: performer.revision)
        machine.adoptsOrphans = children.adoptsOrphans
        machine.watchdogPing = serviceRequests.watchdogPing
        machine.handOver(performer.listening)
        driver.enqueue(.operator(.reload(machine)))
        return nil
    }

    /// The machine's last action. What was made in the file system goes first.
    private func end(_ code: Int32) -> Never {
        let code = performer.exitCode(code)
        desk.end(code: code)
        control.listener?.close()
        sidecarServer?.close()
        performer.front?.close()
        performer.removeSockets()
        performer.listening.serve?.close()
        performer.listening.sidecar?.close()
        notifySocket?.remove()
        performer.notices?.finish()
        // Not exit(3): the output thread is alive, and nothing of ours is left for atexit handlers.
        _exit(code)
    }

    /// Names this run: it tells our workers' environments from those of another panelind.
    private static func token() -> String {
        var random = SystemRandomNumberGenerator()
        return String(random.next(), radix: 36)
    }
}

extension OutputConfiguration {
    /// What `log.*` says, on a terminal or not.
    init(_ log: Settings.Log, terminal: Bool) {
        let colours = terminal && getenv("NO_COLOR").map({ $0.pointee == 0 }) ?? true
        switch log.format {
        case .text: self.init(format: .text(colour: colours))
        case .json: self.init(format: .json)
        case .journal: self.init(format: .journal)
        case .inherit: self.init(format: .inherit)
        }
        switch log.level {
        case .debug: level = .debug
        case .info: level = .info
        case .warning: level = .warning
        case .error: level = .error
        }
        lineLimit = log.lineLimit
        buffer = log.buffer
        overflow = log.overflow == .block ? .block : .drop
    }
}
