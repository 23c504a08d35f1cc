//  ClientConnection.swift
//  One client's connection: heads cut out of its bytes, one request at a time, answers in order, every wait bounded.
//  Health is answered here, from memory. Read Transaction.swift first; Front.swift owns it.

import NIOCore
import NIOHTTP1
import PanelindCore
import PanelindHTTP

/// The only handler of a client connection's pipeline.
final class ClientConnection: ChannelInboundHandler, DeadlineOwner {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Of requests that follow an unfinished one, so many bytes are taken in; the rest waits in the kernel.
    private static let ahead = 16 * 1024

    /// What came and was not used yet.
    var inbound = ByteBuffer()
    /// The client has sent all it will send (its FIN).
    private(set) var inputEnded = false

    private let front: Front
    private let server: HTTPServer
    /// Beyond the limit of connections: health is answered, all else refused.
    private let answersOnce: Bool
    private var context: ChannelHandlerContext?
    private var entry: ConnectionDeadlines.Entry?
    private var transaction: Transaction?
    private var headEnd = HeadEnd()
    private var hasSkippedLine = false
    /// Storage of the last forwarded head, for the next.
    private var spare = ByteBuffer()
    private var forwarding: Forwarding?

    private var isReading = false
    private var isAdvancing = false
    private var hasUnflushed = false
    /// The last answer is written: once it is out, the connection ends.
    private var isEnding = false
    /// It was broken off, by the peer or by us.
    private var hasFailed = false

    init(front: Front, server: HTTPServer, answersOnce: Bool) {
        self.front = front
        self.server = server
        self.answersOnce = answersOnce
    }

    // MARK: the channel's life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        entry = server.deadlines.add(self, wait: .idle)
        if context.channel.isActive { context.read() }
    }

    func channelActive(context: ChannelHandlerContext) { context.read() }

    func channelInactive(context: ChannelHandlerContext) { leave() }

    func handlerRemoved(context: ChannelHandlerContext) {
        leave()
        self.context = nil
    }

    private func leave() {
        isEnding = true
        if let entry {
            self.entry = nil
            server.deadlines.remove(entry)
        }
        inbound = ByteBuffer()
        if let transaction {
            self.transaction = nil
            transaction.clientGone(cleanly: !hasFailed)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { closeNow() }

    func closeNow() {
        hasFailed = true
        context?.close(promise: nil)
    }

    func deadlinePassed(_ wait: ConnectionDeadlines.Wait) {
        switch wait {
        case .head: refuse(HeadRefusal(408, "a head that took too long"))
        case .body:
            if let transaction, !transaction.isTunnel { transaction.bodyTimedOut() } else { closeNow() }
        case .idle, .answer, .write, .linger: closeNow()
        }
        settle(active: true)
    }

    /// The peer as the log names it.
    var peerText: String {
        let peer = forwardingNow().peer
        return peer.isEmpty ? "unix" : String(decoding: peer, as: UTF8.self)
    }

    // MARK: what comes in

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if isEnding { return }
        isReading = true
        inbound.absorb(unwrapInboundIn(data))
        if let transaction {
            if transaction.isTunnel { transaction.takeClientTunnelBytes() } else { transaction.pump() }
        }
        advance()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        settle(active: true)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? ChannelEvent, event == .inputClosed else { return }
        inputEnded = true
        if let transaction {
            if transaction.isTunnel { transaction.tunnelInputEnded(fromClient: true) } else { transaction.pump() }
        }
        // A FIN after a whole request is not a cancel: what was asked is answered first (CONTRACT section 5).
        if !isReading { settle(active: true) }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if isWritable { transaction?.clientWritable() }
        resume()
        if !isReading { settle(active: true) }
    }

    // MARK: requests

    /// Takes requests off what came, until one is under way or the client does not take its answers.
    private func advance() {
        if isAdvancing { return }
        isAdvancing = true
        while transaction == nil, !isEnding, inbound.readableBytes > 0, isWritable, takeHead() {}
        isAdvancing = false
        if inbound.readableBytes == 0 { inbound = ByteBuffer() }
    }

    private enum Taken {
        case more
        case request(RequestPlan, Int)
        case health(HealthEndpoint, RequestPlan, Int)
        case failed(RequestFault)
    }

    /// Takes one head; false while none is whole.
    private func takeHead() -> Bool {
        if !hasSkippedLine, inbound.getInteger(at: inbound.readerIndex, as: UInt16.self) == 0x0d0a {
            // RFC 9112 section 2.2: an empty line before a request is passed over; one.
            hasSkippedLine = true
            inbound.moveReaderIndex(forwardBy: 2)
            return true
        }
        var head = spare
        spare = ByteBuffer()
        head.clear()
        let taken = inbound.withUnsafeReadableBytes { take($0, &head) }
        switch taken {
        case .more:
            spare = head
            return false
        case .failed(.preface):
            front.refused(HeadRefusal(505, "an HTTP/2 preface"), peer: peerText)
            // Its sender understands no answer; those before it were for somebody who does.
            endOutput(linger: false)
        case .failed(.refused(let refusal)): refuse(refusal)
        case .health(let endpoint, let plan, let count):
            spare = head
            consume(count)
            answerHealth(endpoint, plan)
        case .request(let plan, let count):
            consume(count)
            start(plan, head)
        }
        return true
    }

    private func consume(_ count: Int) {
        inbound.moveReaderIndex(forwardBy: count)
        headEnd = HeadEnd()
        hasSkippedLine = false
    }

    /// Judges what has come of a head, and writes the one that is forwarded.
    private func take(_ raw: UnsafeRawBufferPointer, _ out: inout ByteBuffer) -> Taken {
        let count: Int
        do throws(HeadFault) {
            guard let found = try headEnd.find(in: raw) else {
                guard RequestHead.isHopeless(raw) else { return .more }
                return .failed(.refused(HeadRefusal(414, "a target of more than 16 KiB")))
            }
            count = found
            try front.lines.cut(UnsafeRawBufferPointer(rebasing: raw[..<count]))
        } catch {
            return .failed(.refused(RequestHead.refusal(for: error, raw)))
        }
        let head = UnsafeRawBufferPointer(rebasing: raw[..<count])
        do throws(RequestFault) {
            let plan = try RequestHead.judge(head, front.lines)
            if let endpoint = front.health(UnsafeRawBufferPointer(rebasing: head[plan.target])) {
                // Fields of a method are not needed any more but its name: the answer depends on it.
                method = Self.method(UnsafeRawBufferPointer(rebasing: head[..<plan.methodEnd]))
                return .health(endpoint, plan, count)
            }
            if case .length(let length) = plan.body, let limit = front.settings.bodyLimit, length > limit {
                return .failed(.refused(HeadRefusal(413, "a body beyond serve.bodyLimit")))
            }
            var forwarding = forwardingNow()
            forwarding.requestID = front.nextIdentifier()
            plan.write(head, front.lines, forwarding, into: &out)
            return .request(plan, count)
        } catch {
            return .failed(error)
        }
    }

    private func start(_ plan: RequestPlan, _ head: ByteBuffer) {
        guard !answersOnce else {
            front.refused(HeadRefusal(503, "too many connections"), peer: peerText)
            return answer(
                status: 503, detail: "too many connections", fields: ["Retry-After: 1"], headOnly: plan.isHead,
                persistence: .close)
        }
        let transaction = Transaction(client: self, front: front, plan: plan, head: head)
        self.transaction = transaction
        transaction.arrive()
    }

    /// The transaction ended and its answer is written.
    func transactionEnded(closing: Bool) {
        if let head = transaction?.head, head.capacity <= 4096 { spare = head }
        transaction = nil
        if closing { endOutput(linger: !inputEnded) }
        resume()
    }

    /// What came behind the request is looked at now.
    private func resume() {
        guard !isAdvancing, !isReading else { return }
        advance()
    }

    // MARK: health

    private var method = HTTPMethod.GET

    private static func method(_ bytes: UnsafeRawBufferPointer) -> HTTPMethod {
        bytes.elementsEqual("GET".utf8) ? .GET : bytes.elementsEqual("HEAD".utf8) ? .HEAD : .POST
    }

    /// Excepted from every refusal: the connection is kept, in a drain too.
    private func answerHealth(_ endpoint: HealthEndpoint, _ plan: RequestPlan) {
        let keeps = plan.keepsAlive && plan.body == .none && !answersOnce
        write(
            front.board.answer(
                endpoint, method: method, persistence: keeps ? (plan.isHTTP10 ? .keepAndSay : .keep) : .close))
        if !keeps { endOutput(linger: plan.body != .none) }
    }

    // MARK: answers of our own

    /// Not a request, or one that is not served: answered and closed.
    private func refuse(_ refusal: HeadRefusal) {
        if isEnding { return }
        front.refused(refusal, peer: peerText)
        let allow = refusal.status == 405 ? ["Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"] : []
        write(
            AnswerText.problem(
                status: refusal.status, detail: refusal.detail.description, fields: allow, persistence: .close))
        endOutput(linger: true)
    }

    /// The answer to the present request, which ends it.
    func answer(status: Int, detail: String, fields: [String], headOnly: Bool, persistence: Persistence) {
        write(
            AnswerText.problem(
                status: status, detail: detail, fields: fields, headOnly: headOnly, persistence: persistence))
        transaction = nil
        if persistence == .close { endOutput(linger: true) }
        resume()
        if !isReading && !isAdvancing { settle(active: true) }
    }

    /// Breaks off, so that the client sees truncation.
    func abort(reset: Bool) {
        transaction = nil
        isEnding = true
        flush()
        guard let context else { return }
        if reset { context.channel.resetOnClose() }
        context.close(promise: nil)
    }

    // MARK: what goes out

    var isWritable: Bool { context?.channel.isWritable ?? false }

    func write(_ bytes: ByteBuffer) {
        guard let context, !isEnding else { return }
        hasUnflushed = true
        context.write(wrapOutboundOut(bytes), promise: nil)
    }

    private func flush() {
        guard hasUnflushed, let context else { return }
        hasUnflushed = false
        context.flush()
    }

    /// Passes a FIN on.
    func closeOutput() {
        flush()
        context?.close(mode: .output, promise: nil)
    }

    /// Nothing follows what is written: once it is out, close; where the client may still be sending, read on for a
    /// moment, else the kernel's RST would overtake the answer (RFC 9112 section 9.6).
    private func endOutput(linger: Bool) {
        guard let context, !isEnding else { return }
        isEnding = true
        inbound = ByteBuffer()
        let done = context.eventLoop.makePromise(of: Void.self)
        done.futureResult.assumeIsolatedUnsafeUnchecked().whenComplete { [self] result in
            guard let context = self.context, let entry else { return }
            guard linger, !inputEnded, case .success = result else { return closeNow() }
            server.deadlines.move(entry, to: .linger)
            context.close(mode: .output, promise: nil)
            context.read()
        }
        hasUnflushed = true
        context.write(wrapOutboundOut(ByteBuffer()), promise: done)
    }

    // MARK: order

    /// Brings everything into agreement after anything happened: flush, deadline, and whether to read on.
    func settle(active: Bool) {
        if isReading || isAdvancing { return }
        // Whole requests may still wait behind answers that the client has yet to take.
        let isIdle = transaction == nil && (isWritable || inbound.readableBytes == 0)
        if inputEnded, isIdle { endOutput(linger: false) }
        flush()
        guard let context, let entry else { return }
        if isEnding {
            if entry.wait == .linger { context.read() } else { wait(.write, entry, active) }
            return
        }
        guard let transaction else {
            guard isWritable else { return wait(.write, entry, active) }
            wait(inbound.readableBytes > 0 || hasSkippedLine ? .head : .idle, entry, active)
            return context.read()
        }
        if !isWritable {
            wait(.write, entry, active)
        } else if transaction.isHalfTunnel || transaction.wantsBody && !transaction.isTunnel {
            wait(.body, entry, active)
        } else {
            wait(.answer, entry, active)
        }
        let wantsMore =
            transaction.isTunnel
            ? transaction.tunnelTakesBytes : transaction.wantsBody || inbound.readableBytes < Self.ahead
        if wantsMore && !inputEnded { context.read() }
    }

    /// The whole head has its time; all other waits begin anew with every activity.
    private func wait(_ wait: ConnectionDeadlines.Wait, _ entry: ConnectionDeadlines.Entry, _ active: Bool) {
        if entry.wait != wait {
            server.deadlines.move(entry, to: wait)
        } else if active && wait != .head {
            entry.since = front.loop.now
        }
    }

    /// What is known of the peer, asked once.
    private func forwardingNow() -> Forwarding {
        if let forwarding { return forwarding }
        var made = Forwarding()
        if let address = context?.channel.remoteAddress {
            made.peer = Array((address.peerText ?? "").utf8)
            made.isTrusted = front.settings.isTrusted(address)
        } else {
            // Gone already, as far as the kernel knows. An empty name would look like a peer on a unix socket.
            made.peer = Array("unknown".utf8)
        }
        forwarding = made
        return made
    }
}
