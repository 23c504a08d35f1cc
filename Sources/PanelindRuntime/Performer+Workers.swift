//  Performer+Workers.swift
//  Workers: prepare, spawn, signal, sweep, forget; and their deaths, as the kernel tells them.
//  Read after Performer.swift.

import Glibc
import NIOCore
import PanelindCore
import PanelindOutput
import PanelindSettings
import PanelindSystem

extension Performer {
    func perform(_ action: WorkerAction, of generation: Generation, at now: Instant) {
        switch action {
        case .prepare(let revision): prepare(generation, revision)
        case .spawn(let revision): startSoon(generation, revision)
        case .signal(let signal, let target):
            if terminalHasInterrupted {
                terminalHasInterrupted = false
                return
            }
            _ = children.signal(generation, signal, target: target)
        case .sweep(let signal, let sparingGroup):
            let pass = children.sweep(generation, signal: signal, skippingGroup: sparingGroup)
            tell(generation, .swept(left: pass.left, killed: signal == .kill ? pass.signalled : []))
        // Those that died of the pass are reaped at their SIGCHLD.
        case .ask(let kind, let attempt, let probe): ask(generation, kind, attempt, probe)
        case .abandon(let kind, let attempt): abandon(generation, kind, attempt)
        case .forget: forget(generation)
        }
    }

    /// Secrets are read on a thread of their own: a network mount may hang for minutes.
    private func prepare(_ generation: Generation, _ revision: Int) {
        kept[generation] = Kept(revision: revision)
        guard let settings = settings[revision] else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        let failure = startThread {
            let result = readSecrets(settings)
            loop.execute {
                let performer = bound.value
                switch result {
                case .success(let secrets):
                    performer.kept[generation]?.secrets = secrets
                    performer.tell(generation, .prepared)
                case .failure(let failure): performer.tell(generation, .prepareFailed(failure))
                }
                performer.driver.run()
            }
        }
        if let failure {
            tell(
                generation,
                .prepareFailed(StartFailure(.noProcess, "cannot start worker: no thread to read secrets: \(failure)")))
        }
    }

    /// A start holds the loop for as long as the kernel needs for it: whoever asks /ready meanwhile would wait to hear of
    /// the death before it. So what waits on the descriptors is answered first; it costs one turn of the loop.
    private func startSoon(_ generation: Generation, _ revision: Int) {
        guard let lookAround else { return spawn(generation, revision) }
        waitingStarts.append { [unowned self] in spawn(generation, revision) }
        if waitingStarts.count == 1 { lookAround() }
    }

    func runWaitingStarts() {
        let starts = waitingStarts
        waitingStarts = []
        for start in starts { start() }
    }

    private func spawn(_ generation: Generation, _ revision: Int) {
        var keep = kept[generation] ?? Kept(revision: revision)
        let secrets = keep.secrets
        keep.secrets = []
        keep.oomKills = oom.kills()
        kept[generation] = keep
        guard let settings = settings[revision] else { return }
        var launch = Launch(
            settings: settings, environment: environment, secrets: secrets, notifyPath: notifyPath)
        if settings.serve.mode == .front, let failure = choosePlace(generation, &launch) {
            return tell(generation, .spawnFailed(failure))
        }
        var request: SpawnRequest
        switch launch.request() {
        case .success(let made): request = made
        case .failure(let failure): return tell(generation, .spawnFailed(failure))
        }
        if settings.serve.mode == .socket, let listener = listening.serve {
            request.extraDescriptors.append(.init(target: 3, source: listener.descriptor))
        }
        guard let ends = openPipes(for: settings, &request) else {
            return tell(
                generation,
                .spawnFailed(StartFailure(.noProcess, "cannot start worker: no descriptor is free for its output")))
        }
        switch children.spawn(request, role: .worker(generation)) {
        case .failure(let error):
            ends.all.forEach { close($0) }
            tell(generation, .spawnFailed(error.startFailure(of: request)))
        case .success(let pid):
            ends.writing.forEach { close($0) }
            attach(ends, to: generation, settings)
            tell(generation, .spawned(pid: pid))
        }
    }

    /// The pipes of one start: ours to read, the child's to write.
    private struct Ends {
        var reading: [Int32] = []
        var writing: [Int32] = []
        /// The reading end of `probe.*.fd`, the last of `reading`.
        var ready: Int32?
        var all: [Int32] { reading + writing }
    }

    /// Opens them all, or none.
    private func openPipes(for settings: Settings, _ request: inout SpawnRequest) -> Ends? {
        var ends = Ends()
        func open(_ bytes: Int) -> Int32? {
            guard case .success(let pipe) = Pipes.makePipe(bytes: bytes) else { return nil }
            let (reading, writing) = pipe.release()
            ends.reading.append(reading)
            ends.writing.append(writing)
            return writing
        }
        if settings.log.format != .inherit {
            // A large pipe lets the worker write on while the output thread is busy with a block.
            guard let out = open(1 << 20), let error = open(1 << 20) else {
                ends.all.forEach { close($0) }
                return nil
            }
            request.standardOutput = out
            request.standardError = error
        }
        for probe in [settings.probe.startup, settings.probe.readiness] {
            guard case .descriptor(let number)? = probe?.method else { continue }
            guard let writing = open(0) else {
                ends.all.forEach { close($0) }
                return nil
            }
            request.extraDescriptors.append(.init(target: number, source: writing))
            ends.ready = ends.reading.last
            break
        }
        return ends
    }

    private func attach(_ ends: Ends, to generation: Generation, _ settings: Settings) {
        if settings.log.format != .inherit {
            var expression: String?
            if case .log(let text)? = settings.probe.startup?.method { expression = text }
            output.attach(
                generation: generation.number, stream: .stdout, descriptor: ends.reading[0], matching: expression)
            output.attach(
                generation: generation.number, stream: .stderr, descriptor: ends.reading[1], matching: expression)
        }
        guard let ready = ends.ready else { return }
        kept[generation]?.readyWatch = Watch(
            ready, loop: loop,
            onBytes: { [unowned self] bytes in
                guard bytes.readableBytesView.contains(UInt8(ascii: "\n")) else { return }
                tell(generation, .descriptor(ready: true))
                driver.run()
            },
            onEnd: { [unowned self] in
                tell(generation, .descriptor(ready: false))
                driver.run()
            })
    }

    /// SIGCHLD: takes every dead child and enqueues what its end means.
    func reap() {
        // True: so many had died that more may wait, without another SIGCHLD to say so.
        while children.reap(enqueue) {}
    }

    private func enqueue(_ event: ChildEvent) {
        metrics.countReaped(1)
        switch event {
        case .leaderExited(let generation, let status, let use):
            var killedByKernel = false
            if case .signal(.kill, _) = status, let before = kept[generation]?.oomKills {
                killedByKernel = (oom.kills() ?? 0) > before
            }
            mainPIDs[generation] = children.mainPID(of: generation)
            tell(generation, .exited(status, use, oom: killedByKernel))
        case .probeExited(let generation, let id, let status): commandEnded(generation, id, status)
        case .orphanReaped:
            for generation in driver.supervisor.generations { tell(generation, .orphansReaped) }
        }
    }

    private func forget(_ generation: Generation) {
        if let keep = kept.removeValue(forKey: generation) {
            keep.readyWatch?.close()
            closePlace(generation, keep)
            let inUse = Set(kept.values.map(\.revision)).union(driver.supervisor.revisions).union([revision])
            settings = settings.filter { inUse.contains($0.key) }
        }
        children.forget(generation)
        output.detach(generation: generation.number)
    }
}

/// Runs a body on a thread of its own; returns the error if there is none to be had.
func startThread(_ body: @escaping @Sendable () -> Void) -> SystemError? {
    final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 256 << 10)
    let context = Unmanaged.passRetained(Box(body))
    var thread = pthread_t()
    let result = pthread_create(
        &thread, &attributes,
        { pointer in
            if let pointer { Unmanaged<Box>.fromOpaque(pointer).takeRetainedValue().body() }
            return nil
        }, context.toOpaque())
    guard result != 0 else { return nil }
    context.release()
    return SystemError(result)
}
