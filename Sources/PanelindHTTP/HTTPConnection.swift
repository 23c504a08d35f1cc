//  HTTPConnection.swift
//  One client's connection: requests judged, answered in order, bounded in size, number and time.
//  One write and one flush for all that one read brought. Read Framing, Exchange, ConnectionDeadlines, QuickHead first.

import NIOCore
import NIOHTTP1

/// The first handler of a connection's pipeline; on the loop's thread only. NIO's decoder stands behind it, from the
/// first request on that is not one of the plainest, and hands its parts back.
final class HTTPConnection: ChannelInboundHandler, DeadlineOwner {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// What waits for its turn behind an unfinished answer.
    private enum Turn {
        case request(Request)
        case refusal(HeadRefusal)
    }

    private let server: HTTPServer
    private let responder: any Responder
    private let limits: HTTPLimits
    /// A connection beyond the limit: answered, not kept.
    private let answersOnce: Bool
    private var context: ChannelHandlerContext?
    private var channel: (any Channel)?
    private var entry: ConnectionDeadlines.Entry?

    private var hasDecoder = false
    private var watch = HeadWatch()
    /// The request whose body is being thrown away.
    private var current: Request?
    private var bodyBytes = 0
    private var exchange: Exchange?
    private var turns = CircularBuffer<Turn>(initialCapacity: 0)
    private var isTakingTurns = false
    private var isReading = false
    private var hasUnflushed = false
    /// Nothing more that the client sends is looked at.
    private var isDeaf = false
    /// The client has sent all it will send (its FIN).
    private var inputEnded = false
    /// The last answer is written: once it is out, the connection ends.
    private var isEnding = false

    init(server: HTTPServer, responder: any Responder, answersOnce: Bool) {
        self.server = server
        self.responder = responder
        limits = server.limits
        self.answersOnce = answersOnce
    }

    // MARK: the channel's life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        channel = context.channel
        entry = server.deadlines.add(self, wait: .idle)
        if context.channel.isActive { context.read() }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        leave()
        self.context = nil
        channel = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        context.read()
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    private func leave() {
        isDeaf = true
        isEnding = true
        if let entry {
            self.entry = nil
            server.deadlines.remove(entry)
        }
        turns.removeAll()
        current = nil
        if let exchange {
            self.exchange = nil
            exchange.gone()
        }
    }

    func closeNow() { context?.close(promise: nil) }

    func deadlinePassed(_ wait: ConnectionDeadlines.Wait) {
        switch wait {
        case .head, .body: refuse(HeadRefusal(408, "the request took too long"))
        case .idle, .answer, .write, .linger: closeNow()
        }
    }

    // MARK: what comes in

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if isDeaf { return }
        isReading = true
        var bytes = unwrapInboundIn(data)
        if watch.isBetween && exchange == nil && turns.isEmpty && !answersOnce && !server.isLastCall {
            while bytes.readableBytes > 0, let answer = answerAtOnce(&bytes) { write(answer) }
            if bytes.readableBytes == 0 { return }
        }
        decode(bytes, context)
    }

    private func answerAtOnce(_ bytes: inout ByteBuffer) -> ByteBuffer? {
        let (answer, length) = bytes.withUnsafeReadableBytes { raw -> (ByteBuffer?, Int) in
            guard let match = QuickHead.match(raw) else { return (nil, 0) }
            return (responder.respondAtOnce(to: match.request), match.length)
        }
        if answer != nil { bytes.moveReaderIndex(forwardBy: length) }
        return answer
    }

    /// Feeds the decoder; its parts are back before it returns.
    private func decode(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        if !hasDecoder {
            hasDecoder = true
            let decoder = HTTPRequestDecoder(
                leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .drop,
                limitConfiguration: limits.decoder)
            do {
                try context.pipeline.syncOperations.addHandlers(
                    [ByteToMessageHandler(decoder), PartsReturn(self)], position: .after(self))
            } catch {
                return closeNow()
            }
        }
        watch.willDecode(bytes)
        context.fireChannelRead(wrapInboundOut(bytes))
        watch.didDecode(bytes, isInsideBody: current != nil)
    }

    fileprivate func take(_ part: HTTPServerRequestPart) {
        if isDeaf { return }
        switch part {
        case .head(let head): takeHead(head)
        case .body(let bytes): takeBody(bytes.readableBytes)
        case .end: takeEnd()
        }
    }

    private func takeHead(_ head: HTTPRequestHead) {
        let framing: RequestFraming
        do {
            framing = try Framing.judge(head, targetBytes: limits.targetBytes)
        } catch {
            return refuse(error)
        }
        bodyBytes = 0
        if case .length(let length) = framing.body, length > limits.bodyBytes {
            return refuse(HeadRefusal(413, "the body is too long"))
        }
        let keeps = framing.keepsAlive && !framing.asksUpgrade && !answersOnce && !server.isLastCall
        current = Request(
            head: head, framing: framing,
            persistence: keeps ? (framing.isHTTP10 ? .keepAndSay : .keep) : .close,
            channel: channel)
        if framing.expectsContinue && exchange == nil && turns.isEmpty { write(AnswerText.goOn) }
    }

    private func takeBody(_ count: Int) {
        bodyBytes += count
        if bodyBytes > limits.bodyBytes { refuse(HeadRefusal(413, "the body is too long")) }
    }

    private func takeEnd() {
        guard let request = current else { return }
        current = nil
        watch.messageEnded(withBody: request.framing.body != .none)
        // After `close` nothing more is a request; after an upgrade NIO's decoder has stopped.
        if request.persistence == .close { isDeaf = true }
        take(.request(request))
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        settle(active: true)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { endInput() }
        context.fireUserInboundEventTriggered(event)
    }

    /// The socket's own error.
    func errorCaught(context: ChannelHandlerContext, error: any Error) { closeNow() }

    /// The decoder's error.
    fileprivate func take(_ error: any Error) {
        // Bytes after the decoder's end are nobody's.
        guard !isDeaf, let error = error as? HTTPParserError else { return }
        switch error {
        case .headerOverflow where watch.isInsideHead && !watch.hasWholeLine:
            refuse(HeadRefusal(414, "the target is too long"))
        case .headerOverflow: refuse(HeadRefusal(431, "the head is too long or has too many fields"))
        case .invalidEOFState: endInput()
        case .paused: closeNow()  // An HTTP/2 preface: its sender would not understand an answer.
        default: refuse(HeadRefusal(400, "not a valid HTTP/1.1 request"))
        }
        if !isReading { settle(active: true) }
    }

    private func endInput() {
        inputEnded = true
        isDeaf = true
        current = nil
        // A FIN after a whole request is not a cancel: what was asked is answered first (CONTRACT section 5).
        if isReading { return }
        settle(active: true)
    }

    // MARK: turns

    private func take(_ turn: Turn) {
        guard exchange != nil || isTakingTurns || !turns.isEmpty else { return perform(turn) }
        if turns.count >= limits.pipelined { return closeNow() }
        turns.append(turn)
    }

    private func takeTurns() {
        if isTakingTurns { return }
        isTakingTurns = true
        while exchange == nil, !isEnding, !turns.isEmpty { perform(turns.removeFirst()) }
        isTakingTurns = false
    }

    private func perform(_ turn: Turn) {
        switch turn {
        case .request(let request):
            switch responder.respond(to: request) {
            case .whole(let bytes):
                write(bytes)
                if request.persistence == .close { endOutput(linger: false) }
            case .later(let start):
                let exchange = Exchange(request: request, connection: self)
                self.exchange = exchange
                start(exchange)
            }
        case .refusal(let refusal):
            let allow = refusal.status == 405 ? ["Allow: GET, HEAD"] : []
            write(
                AnswerText.problem(
                    status: refusal.status, detail: refusal.detail.description, fields: allow, persistence: .close))
            endOutput(linger: true)
        }
    }

    private func refuse(_ refusal: HeadRefusal) {
        if isDeaf { return }
        isDeaf = true
        current = nil
        take(.refusal(refusal))
        if !isReading { settle(active: true) }
    }

    // MARK: what goes out

    var isWritable: Bool { channel?.isWritable ?? false }

    func exchangeWrites(_ bytes: ByteBuffer) {
        write(bytes)
        if !isReading { flush() }
    }

    func exchangeEnds(keeping: Bool) {
        exchange = nil
        if !keeping { endOutput(linger: false) }
        if !isReading && !isTakingTurns { settle(active: true) }
    }

    func exchangeAborts() {
        exchange = nil
        closeNow()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if isWritable { exchange?.writable() }
        if !isReading { settle(active: true) }
        context.fireChannelWritabilityChanged()
    }

    private func write(_ bytes: ByteBuffer) {
        guard let context, !isEnding else { return }
        hasUnflushed = true
        context.write(wrapOutboundOut(bytes), promise: nil)
    }

    private func flush() {
        guard hasUnflushed, let context else { return }
        hasUnflushed = false
        context.flush()
    }

    /// Nothing follows what is written: once it is out, close; where the client may still be sending, read on for
    /// a moment, else the kernel's RST would overtake the answer (RFC 9112 section 9.6).
    private func endOutput(linger: Bool) {
        guard let context, !isEnding else { return }
        isEnding = true
        isDeaf = true
        turns.removeAll()
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

    /// Brings everything into agreement after anything happened: turns, flush, deadline, and whether to read on.
    private func settle(active: Bool) {
        if !turns.isEmpty { takeTurns() }
        if inputEnded && exchange == nil && turns.isEmpty { endOutput(linger: false) }
        flush()
        guard let context, let entry else { return }
        if isEnding {
            if entry.wait == .linger { context.read() } else { wait(.write, entry, active) }
            return
        }
        let isWritable = isWritable
        if !isWritable {
            wait(.write, entry, active)
        } else if exchange != nil {
            wait(.answer, entry, active)
        } else {
            wait(current != nil ? .body : watch.isInsideHead ? .head : .idle, entry, active)
            context.read()
        }
    }

    /// The whole head and the whole body have their time; all other waits begin anew with every activity.
    private func wait(_ wait: ConnectionDeadlines.Wait, _ entry: ConnectionDeadlines.Entry, _ active: Bool) {
        if entry.wait != wait {
            server.deadlines.move(entry, to: wait)
        } else if active && wait != .head && wait != .body {
            entry.since = context?.eventLoop.now ?? entry.since
        }
    }
}

/// The last handler: brings the decoder's parts and errors back to the connection.
private final class PartsReturn: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart

    private unowned let connection: HTTPConnection

    init(_ connection: HTTPConnection) { self.connection = connection }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { connection.take(unwrapInboundIn(data)) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { connection.take(error) }
}
