//  Front.swift
//  The public listener: owns its connections, asks Admission about each request and carries out what it says.
//  A route comes in; two edges and refused connections go out. Read Admission.swift in Core, then Transaction.swift.

import Glibc
import NIOCore
import PanelindCore
import PanelindHTTP

/// How many of each a front has now.
package struct FrontKept: Hashable, Sendable {
    package var requests = 0
    package var inFlight = 0
    package var held = 0
    /// Connections of clients.
    package var clients = 0
    /// Connections to workers.
    package var upstreams = 0

    package init() {}

    init(requests: Int, inFlight: Int, held: Int, clients: Int, upstreams: Int) {
        self.requests = requests
        self.inFlight = inFlight
        self.held = held
        self.clients = clients
        self.upstreams = upstreams
    }
}

/// The front; on the loop's thread only.
public final class Front {
    /// A body that does not come on for so long is given up (408).
    static let bodyStall: Duration = .seconds(60)
    /// A client that takes nothing for so long is cut off. The kernel tells of progress in large steps only.
    static let writeStall: Duration = .seconds(300)
    /// Refusals told in one second.
    private static let refusalsTold = 10

    /// News for the supervisor. Enqueue only: `onNewsEnd` follows when the front is in order again.
    public var onNews: (FrontEvent) -> Void = { _ in }
    public var onNewsEnd: () -> Void = {}
    /// A request is over.
    public var onFinished: (FinishedRequest) -> Void = { _ in }
    /// A connection was refused.
    public var onRefused: (RefusedRequest) -> Void = { _ in }

    let loop: any EventLoop
    let board: HealthBoard
    let clock: () -> Instant
    private(set) var settings: FrontSettings
    private(set) var admission: Admission
    private var serverStorage: HTTPServer?
    /// Heads are cut one at a time: one table does for all.
    var lines = HeadLines()
    /// Small pieces of an answer on their way into one write.
    var gather = ByteBuffer()
    private(set) lazy var upstreams = UpstreamPool(front: self)

    private var transactions: [RequestID: Transaction] = [:]
    private var depth = 0
    private var hasNews = false
    private var timer: Scheduled<Void>?
    private var timerAt: Instant?
    private let listenerIsInherited: Bool
    private var identifiers: RandomNumbers
    private var dates = HTTPDate()
    private var toldSince = Instant.zero
    private var told = 0
    private var untold = 0

    /// Makes a front that does not accept yet and holds everything.
    ///
    /// - Parameters:
    ///   - descriptor: of the listener; duplicated here.
    ///   - listenerIsInherited: somebody keeps it open beyond us: once a stop begins, its queue is the successor's.
    /// - Errors: `HTTPServer.Failure` where the descriptor cannot be duplicated.
    public init(
        descriptor: CInt, listenerIsInherited: Bool, loop: any EventLoop, board: HealthBoard,
        settings: FrontSettings, clock: @escaping () -> Instant
    ) throws(HTTPServer.Failure) {
        self.loop = loop
        self.board = board
        self.settings = settings
        self.clock = clock
        self.listenerIsInherited = listenerIsInherited
        admission = Admission(settings.admission)
        var random = SystemRandomNumberGenerator()
        identifiers = RandomNumbers(seed: random.next())
        serverStorage = try HTTPServer(
            descriptor: descriptor, loop: loop, limits: settings.limits
        ) { [unowned self] server, answersOnce in
            ClientConnection(front: self, server: server, answersOnce: answersOnce)
        }
    }

    deinit { timer?.cancel() }

    /// The listener.
    public var server: HTTPServer? { serverStorage }

    /// Starts to accept.
    public func start() -> EventLoopFuture<Void> {
        serverStorage?.start() ?? loop.makeSucceededVoidFuture()
    }

    /// Requests, streams and tunnels that workers have.
    public var inFlight: Int { admission.inFlight }
    /// Requests that wait for a worker.
    public var held: Int { admission.held }

    /// What it keeps for others: nothing, once everybody has gone.
    package var kept: FrontKept {
        FrontKept(
            requests: transactions.count, inFlight: admission.inFlight, held: admission.held,
            clients: serverStorage?.openConnections ?? 0, upstreams: upstreams.deadlines.count)
    }

    // MARK: the supervisor

    /// Carries out what the machine says.
    public func perform(_ action: FrontAction) {
        let now = clock()
        switch action {
        case .route(let route):
            take(route)
            run(admission.take(route, at: now))
        case .reportDrain(let generation): run(admission.reportDrain(generation))
        case .cut(let generation): run(admission.cut(generation, at: now))
        case .dropIdle: upstreams.dropIdle()
        }
    }

    private func take(_ route: Route) {
        switch route {
        case .forward(let generation): upstreams.dropIdle(except: generation)
        case .lastCall(let generation):
            upstreams.dropIdle(except: generation)
            if listenerIsInherited { serverStorage?.stopAccepting() }
        case .refuse(.draining, _), .refuse(.stopping, _):
            guard listenerIsInherited else { break }
            serverStorage?.stopAccepting()
            // Those who ask again are the successor's.
            serverStorage?.deadlines.expireAll(.idle)
        case .hold, .refuse: upstreams.dropIdle()
        }
    }

    /// Tells where a generation serves; before it is routed.
    public func open(_ generation: Generation, at address: UpstreamAddress) { upstreams.open(generation, at: address) }

    /// The generation is gone, and with it whatever it had: a socket that somebody holds open would never say so.
    public func forget(_ generation: Generation) {
        upstreams.forget(generation)
        for transaction in transactions.values where transaction.isWith(generation) {
            transaction.upstreamLost()
            transaction.client.settle(active: true)
        }
    }

    /// Whether the worker's address takes a connection, asked as for a request; the answer may come inside this call.
    public func tryConnection(to generation: Generation, _ answer: @escaping (PanelindCore.ProbeOutcome) -> Void) {
        upstreams.tryConnection(to: generation) { error in
            answer(UpstreamPool.isRefusal(error) ? .failed(ProbeErrors.text(error)) : .passed)
        }
    }

    /// A reload changed the settings; connections that wait already keep the limits of their waits.
    public func use(_ settings: FrontSettings) {
        self.settings = settings
        let deadlines = serverStorage?.deadlines
        deadlines?.setLimit(.head, .nanoseconds(settings.headerTimeout.nanoseconds))
        deadlines?.setLimit(.idle, .nanoseconds(settings.idleTimeout.nanoseconds))
        upstreams.use(settings)
        run(admission.use(settings.admission, at: clock()))
    }

    /// Stops accepting and closes every connection.
    public func close() {
        serverStorage?.close()
        upstreams.dropIdle()
    }

    // MARK: requests

    /// A whole head came.
    func arrive(_ transaction: Transaction, bytes: Int, canRetry: Bool) {
        let (id, actions) = admission.arrive(bytes: bytes, canRetry: canRetry, at: clock())
        transaction.id = id
        transactions[id] = transaction
        run(actions)
    }

    func answered(_ id: RequestID, _ part: AnswerPart) { run(admission.answered(id, part, at: clock())) }

    func lost(_ id: RequestID, unsent: Bool) { run(admission.lost(id, unsent: unsent, at: clock())) }

    /// No connection was made. The supervisor hears of it where the worker's address is why.
    func unreachable(_ id: RequestID, at generation: Generation?, _ error: CInt) {
        if let generation, UpstreamPool.isRefusal(error) {
            hasNews = true
            onNews(.refused(generation))
        }
        lost(id, unsent: true)
    }

    func ended(_ id: RequestID) {
        transactions[id] = nil
        run(admission.ended(id, at: clock()))
    }

    private func run(_ actions: [AdmissionAction]) {
        depth += 1
        for action in actions { perform(action) }
        depth -= 1
        guard depth == 0 else { return }
        arm()
        if hasNews {
            hasNews = false
            onNewsEnd()
        }
    }

    private func perform(_ action: AdmissionAction) {
        switch action {
        case .forward(let id, let generation): transactions[id]?.forward(to: generation)
        case .refuse(let id, let refusal, let retryAfter):
            transactions.removeValue(forKey: id)?.refuse(refusal, retryAfter: retryAfter)
        case .fail(let id): transactions.removeValue(forKey: id)?.fail()
        case .timeOut(let id): transactions.removeValue(forKey: id)?.timeOut()
        case .abort(let id): transactions.removeValue(forKey: id)?.abort()
        case .tell(let event):
            hasNews = true
            onNews(event)
        }
    }

    /// One timer for whoever waits; none where nobody does.
    private func arm() {
        let deadline = admission.held > 0 ? admission.deadline : nil
        if deadline == timerAt { return }
        timer?.cancel()
        timer = nil
        timerAt = deadline
        guard let deadline else { return }
        let wait = max(0, (deadline - clock()).nanoseconds)
        timer = loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: .nanoseconds(wait)) { [unowned self] in
            timer = nil
            timerAt = nil
            run(admission.time(at: clock()))
        }
    }

    // MARK: what connections need

    /// This generation serves, and nothing asks it to end.
    func routesOnly(to generation: Generation) -> Bool { admission.route == .forward(generation) }

    /// The endpoint of a target without its query; compared byte by byte.
    func health(_ target: UnsafeRawBufferPointer) -> HealthEndpoint? {
        let path = UnsafeRawBufferPointer(rebasing: target.prefix { $0 != 0x3f })
        if let health = settings.healthPath, path.elementsEqual(health) { return .health }
        if let ready = settings.readyPath, path.elementsEqual(ready) { return .ready }
        return nil
    }

    /// A new value for `X-Request-Id`.
    func nextIdentifier() -> (UInt64, UInt64) { (identifiers.next(), identifiers.next()) }

    /// The present time as `Date` wants it.
    func date() -> [UInt8] { dates.now() }

    /// Tells the log of a refusal, ten times a second at most.
    func refused(_ refusal: HeadRefusal, peer: String) {
        let now = clock()
        if now - toldSince >= .seconds(1) {
            toldSince = now
            told = 0
        }
        guard told < Self.refusalsTold else {
            untold += 1
            return
        }
        told += 1
        let count = untold
        untold = 0
        onRefused(
            RefusedRequest(status: refusal.status, detail: refusal.detail.description, peer: peer, untold: count))
    }
}
