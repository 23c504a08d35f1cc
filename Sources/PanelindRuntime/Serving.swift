//  Serving.swift
//  The front's place in the daemon: made of the settings, told where each worker serves, its records written.
//  Read after Performer.swift; PanelindFront/Front.swift does the work.

import Glibc
import NIOCore
import PanelindCore
import PanelindFront
import PanelindHTTP
import PanelindOutput
import PanelindSettings
import PanelindSystem

extension Daemon {
    /// Makes the front in front mode; it accepts from `startFront` on.
    func makeFront(_ settings: Settings, _ listening: Listening, _ board: HealthBoard, _ loop: any EventLoop) {
        guard settings.serve.mode == .front, let listener = listening.serve else { return }
        do throws(HTTPServer.Failure) {
            let front = try Front(
                descriptor: listener.descriptor, listenerIsInherited: listener.isInherited, loop: loop, board: board,
                settings: FrontSettings(settings), clock: Clock.now)
            performer.front = front
            performer.metrics.http.inFlight = { [unowned front] in front.inFlight }
            performer.metrics.http.held = { [unowned front] in front.held }
            front.onNews = { [unowned self] event in driver.enqueue(.front(event)) }
            front.onNewsEnd = { [unowned self] in turn() }
            front.onFinished = { [unowned self] request in performer.finished(request) }
            front.onRefused = { [unowned self] request in performer.refused(request) }
        } catch {
            frontFailed("\(error)")
        }
    }

    func startFront() {
        guard let front = performer.front else { return }
        let bound = NIOLoopBound(self, eventLoop: performer.loop)
        front.start().whenFailure { error in
            bound.value.frontFailed("\(error)")
            bound.value.turn()
        }
    }

    private func frontFailed(_ why: String) {
        cannotServe("front", why)
    }

    /// What is listened on and cannot be served is as good as not bound (71): panelind stops in order.
    func cannotServe(_ name: String, _ why: String) {
        output.log(OwnRecord(.critical, event: "\(name)_failed", message: "cannot serve the \(name): \(why)"))
        performer.failure = 71
        driver.enqueue(.operator(.stop(by: "a \(name) that cannot be served")))
    }
}

extension SupervisorSettings {
    /// Where somebody keeps the front's listener open beyond us, a successor comes: clients whose connections are kept
    /// get a last answer, with `Connection: close`, before requests are refused. An idle front would drain at once.
    mutating func handOver(_ listening: Listening) {
        let enough = Duration.milliseconds(250)
        guard mode == .front, listening.serve?.isInherited == true, stop.delay < enough else { return }
        stop.drain = max(.zero, stop.drain - (enough - stop.delay))
        stop.delay = enough
    }
}

extension Performer {
    /// Decides where a worker will serve, and tells it and the front.
    func choosePlace(_ generation: Generation, _ launch: inout Launch) -> StartFailure? {
        let settings = launch.settings
        func failed(_ why: String) -> StartFailure { StartFailure(.other, "cannot start worker: \(why)") }
        let place: PanelindSettings.ListenAddress
        switch settings.serve.placeholder {
        case .socket:
            switch socketDirectory(for: settings.worker.identity.uid) {
            case .failure(let error): return failed("cannot make a directory for its socket: \(error)")
            case .success(let directory):
                let path = "\(directory.path)/\(Self.socketName(generation))"
                launch.socketPath = path
                place = .unix(path)
            }
        case .port:
            switch Listener.freeLoopbackPort() {
            case .failure(let error): return failed("no loopback port is free: \(error)")
            case .success(let port):
                launch.port = port
                place = .tcp(host: "127.0.0.1", port: Int(port))
            }
        case .descriptor, nil:
            guard let upstream = settings.serve.upstream else { return failed("serve.upstream is not set") }
            place = upstream
        }
        kept[generation]?.upstream = place
        switch place {
        case .unix(let path):
            let owner = settings.serve.placeholder == .socket ? settings.worker.identity.uid : nil
            front?.open(generation, at: .unix(path, owner: owner))
        case .tcp(let host, let port):
            guard let address = try? SocketAddress(ipAddress: host, port: port) else {
                return failed("serve.upstream \(place) is not a numeric address")
            }
            front?.open(generation, at: .tcp(address))
        case .systemd: return failed("serve.upstream cannot be an inherited socket")
        }
        return nil
    }

    /// The generation is gone: nobody connects there any more.
    func closePlace(_ generation: Generation, _ keep: Kept) {
        front?.forget(generation)
        guard let settings = settings[keep.revision], settings.serve.placeholder == .socket else { return }
        socketDirectories[settings.worker.identity.uid]?.remove(Self.socketName(generation))
    }

    private static func socketName(_ generation: Generation) -> String { "g\(generation.number).sock" }

    /// Removes what workers' sockets were in.
    func removeSockets() {
        for directory in socketDirectories.values { directory.remove() }
        socketDirectories = [:]
    }

    private func socketDirectory(for uid: UInt32?) -> Result<PrivateDirectory, SystemError> {
        if let made = socketDirectories[uid] { return .success(made) }
        let result = PrivateDirectory.make(access: uid.map { .worker(uid: $0) } ?? .own)
        if case .success(let directory) = result { socketDirectories[uid] = directory }
        return result
    }
}

extension FrontSettings {
    /// `serve.*` as the front wants it.
    init(_ settings: Settings) {
        self.init()
        let serve = settings.serve
        admission.hold = serve.hold
        admission.heldRequests = serve.heldRequests
        admission.concurrency = serve.concurrency
        healthPath = serve.healthPath.map { Array($0.utf8) }
        readyPath = serve.readyPath.map { Array($0.utf8) }
        bodyLimit = serve.bodyLimit
        headerTimeout = serve.headerTimeout
        idleTimeout = serve.idleTimeout
        responseTimeout = serve.responseTimeout
        let proxies = serve.trustedProxies
        isTrusted = { peer in
            let bytes = peer.addressBytes
            return proxies.contains { proxy in
                switch proxy {
                case .all: true
                case .unix: bytes.isEmpty
                case .loopback: Self.loopback.contains { $0.contains(bytes) }
                case .block(let block): !bytes.isEmpty && block.contains(bytes)
                }
            }
        }
    }

    private static let loopback = ["127.0.0.0/8", "::1"].compactMap { AddressBlock($0) }
}

extension SocketAddress {
    /// 4 or 16 bytes in network order; none for a unix socket.
    var addressBytes: [UInt8] {
        switch self {
        case .v4(let address): withUnsafeBytes(of: address.address.sin_addr) { Array($0) }
        case .v6(let address): withUnsafeBytes(of: address.address.sin6_addr) { Array($0) }
        case .unixDomainSocket: []
        }
    }
}
