//  Daemon+Control.swift
//  The daemon as /v1 and the status page see it: the moment's facts, the workers' lines, what may be asked for.
//  Read after Daemon.swift and PanelindControl/Facts.swift.

import Glibc
import NIOCore
import PanelindControl
import PanelindCore
import PanelindHTTP
import PanelindOutput
import PanelindSettings
import PanelindSystem

/// What the daemon holds for those who ask; main thread only.
final class ControlDesk: ControlledDaemon {
    private unowned let daemon: Daemon
    private var questions: [Int: ([WorkerLine]) -> Void] = [:]
    private var nextQuestion = 0
    private var responder: ControlResponder?
    private var server: HTTPServer?
    /// The status page on the sidecar.
    private(set) lazy var pages = PageServer(self, daemon.performer.room) { [daemon] time, body in
        let bound = NIOLoopBound(body, eventLoop: daemon.performer.loop)
        let task = daemon.performer.loop.scheduleTask(in: .nanoseconds(time.nanoseconds)) { bound.value() }
        return { task.cancel() }
    }

    init(_ daemon: Daemon) { self.daemon = daemon }

    /// Serves the control socket from now on.
    func serve(_ listener: Listener, loop: any EventLoop) {
        let responder = ControlResponder(self, daemon.performer.room, users: [0, geteuid()])
        self.responder = responder
        let output = daemon.output
        func complain(_ error: any Error) {
            output.log(
                OwnRecord(
                    .error, event: "control_failed", message: "cannot serve the control socket: \(error)"))
        }
        do throws(HTTPServer.Failure) {
            let server = try HTTPServer(
                descriptor: listener.descriptor, loop: loop, limits: .control, responder: responder)
            self.server = server
            server.start().whenFailure { error in
                output.log(
                    OwnRecord(
                        .error, event: "control_failed", message: "cannot serve the control socket: \(error)"))
            }
        } catch {
            complain(error)
        }
    }

    /// panelind ends now: whoever waits is told, streams end.
    func end(code: Int32) {
        responder?.end(code: code)
        server?.close()
    }

    // MARK: questions

    var facts: Facts {
        let performer = daemon.performer
        let supervisor = daemon.driver.supervisor
        let serving = supervisor.current?.generation
        let settings = performer.settings[supervisor.settings.revision]
        let serve = performer.listening.serve.map { "\($0.address)" }
        var facts = Facts(
            version: panelindVersion, revision: performer.environment["K_REVISION"], pid: getpid(),
            startedAt: performer.startedAt, now: Clock.now(), wall: Clock.wallNanoseconds(),
            health: performer.board.snapshot, mode: supervisor.settings.mode, platform: settings?.platform ?? .local,
            listen: serve ?? settings?.serve.directPort.map { "port \($0)" },
            sidecar: performer.listening.sidecar.map { "\($0.address)" },
            command: settings?.worker.command.map(\.description).joined(separator: " ") ?? "",
            serving: serving?.number, workerStatus: serving.flatMap { performer.kept[$0]?.status },
            startupDeadline: supervisor.settings.worker.startupDeadline, stopBudget: supervisor.settings.stop.budget)
        facts.servingPID = serving.flatMap { performer.children.leaderPID(of: $0) }
        let http = performer.metrics.http
        facts.inFlight = http.inFlight()
        facts.held = http.held()
        if supervisor.settings.mode == .front {
            facts.requests = RequestFacts(
                finished: http.finishedRequests, serverErrors: http.serverErrors,
                median: http.durations.quantile(0.5), p95: http.durations.quantile(0.95))
        }
        return facts
    }

    func lines(_ count: Int, after: UInt64?, _ answer: @escaping ([WorkerLine]) -> Void) -> Int {
        nextQuestion += 1
        questions[nextQuestion] = answer
        daemon.output.lines(id: nextQuestion, last: count, after: after ?? 0, waits: after != nil)
        return nextQuestion
    }

    func cancelLines(_ id: Int) {
        if questions.removeValue(forKey: id) != nil { daemon.output.cancelLines(id: id) }
    }

    /// The output thread has answered.
    func take(_ id: Int, _ lines: [RingLine]) {
        questions.removeValue(forKey: id)?(
            lines.map {
                WorkerLine(
                    sequence: $0.sequence, generation: $0.generation, stream: "\($0.stream.name)", time: $0.time,
                    text: $0.text)
            })
    }

    // MARK: operations

    func restart() {
        daemon.driver.enqueue(.operator(.restart))
        daemon.turn()
    }

    func stop() {
        daemon.driver.enqueue(.operator(.stop(by: "panelind stop")))
        daemon.turn()
    }

    func reload() -> ReloadRefusal? {
        let refusal = daemon.reload()
        daemon.turn()
        return refusal
    }
}
