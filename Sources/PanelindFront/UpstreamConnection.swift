//  UpstreamConnection.swift
//  One connection to a worker: carries one transaction at a time, and says when it ends.
//  It decides nothing about the answer: Transaction.swift does. Read UpstreamPool.swift first.

import Glibc
import NIOCore
import NIOPosix
import PanelindCore
import PanelindHTTP

/// The only handler of a worker connection's pipeline.
final class UpstreamConnection: ChannelInboundHandler, DeadlineOwner {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let generation: Generation
    /// It has served a request before this one.
    var isReused = false
    /// What came and was not used yet.
    var inbound = ByteBuffer()

    /// Kept: a connection may close after everything else is gone.
    private let pool: UpstreamPool
    /// The channel's, and closed with it; asked only while that is open.
    private var descriptor: CInt?
    private var transaction: Transaction?
    private var context: ChannelHandlerContext?
    private var entry: ConnectionDeadlines.Entry?
    private var isClosed = false
    private var inputEnded = false
    private var outputEnded = false
    private var hasFailed = false
    private var hasUnflushed = false
    /// It waits for its next request.
    private var isResting = false

    init(pool: UpstreamPool, generation: Generation, transaction: Transaction) {
        self.pool = pool
        self.generation = generation
        self.transaction = transaction
    }

    // MARK: the channel's life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { connected() }
    }

    func channelActive(context: ChannelHandlerContext) { connected() }

    private func connected() {
        guard entry == nil, !isClosed else { return }
        entry = pool.deadlines.add(self, wait: .answer)
        let operations = context?.pipeline.syncOperations
        descriptor = try? operations?.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { $0 }
        guard let transaction else { return close() }
        transaction.attach(self)
    }

    func connectFailed(_ error: CInt) {
        guard entry == nil, let transaction else { return }
        self.transaction = nil
        isClosed = true
        transaction.unreachable(error)
    }

    func channelInactive(context: ChannelHandlerContext) { gone() }

    func handlerRemoved(context: ChannelHandlerContext) { gone() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        hasFailed = true
        // The channel closes by itself after an error of its socket.
        if !isClosed { context.close(promise: nil) }
    }

    private func gone() {
        // The worker's FIN after ours closes the channel at once, and is told by nothing else.
        let reset = hasFailed || !inputEnded && !outputEnded
        let wasOpen = !isClosed
        isClosed = true
        context = nil
        if let entry {
            self.entry = nil
            pool.deadlines.remove(entry)
        }
        guard wasOpen else { return }
        if let transaction {
            self.transaction = nil
            transaction.upstreamEnded(self, reset: reset)
        } else {
            pool.remove(self)
        }
    }

    func closeNow() { close() }

    func deadlinePassed(_ wait: ConnectionDeadlines.Wait) {
        switch wait {
        case .answer: transaction?.answerTimedOut()
        case .head: transaction?.continueTimedOut()
        case .idle, .body, .write, .linger:
            if transaction == nil { pool.remove(self) }
            close()
        }
    }

    // MARK: what the transaction does

    /// The peer has not closed it, and nothing came that nobody asked for, as far as the kernel knows: what it holds
    /// already would be read as the answer to the next request.
    var isUsable: Bool {
        guard !isClosed, !inputEnded, inbound.readableBytes == 0 else { return false }
        guard let descriptor else { return true }
        var byte: UInt8 = 0
        let count = recv(descriptor, &byte, 1, CInt(MSG_PEEK) | CInt(MSG_DONTWAIT))
        if count > 0 { pool.distrust(generation) }
        return count < 0 && errno == EAGAIN
    }

    /// Since its last answer ended, while it serves nobody.
    var idleTime: TimeAmount { entry.map { pool.loop.now - $0.since } ?? .zero }

    var isWritable: Bool { context?.channel.isWritable ?? false }

    /// Serves this transaction from now on.
    func begin(_ transaction: Transaction) {
        self.transaction = transaction
        isResting = false
        wait(.answer)
    }

    /// Waits for something else from now on.
    func wait(_ wait: ConnectionDeadlines.Wait) {
        if let entry { pool.deadlines.move(entry, to: wait) }
    }

    /// If it waits for this, the wait begins anew.
    func waitAnew(_ wait: ConnectionDeadlines.Wait) {
        if let entry, entry.wait == wait { pool.deadlines.move(entry, to: wait) }
    }

    /// Serves nobody: kept for the next.
    func rest() {
        transaction = nil
        inbound = ByteBuffer()
        isResting = true
        wait(.idle)
        context?.read()
    }

    func write(_ bytes: ByteBuffer) {
        guard let context else { return }
        hasUnflushed = true
        context.write(wrapOutboundOut(bytes), promise: nil)
    }

    func flush() {
        guard hasUnflushed, let context else { return }
        hasUnflushed = false
        context.flush()
    }

    func read() { context?.read() }

    /// Passes a FIN on.
    func closeOutput() {
        outputEnded = true
        context?.close(mode: .output, promise: nil)
    }

    /// Ends it once all that was written is out, which the worker has a while to take.
    func closeWhenSent() {
        transaction = nil
        guard let context, !isClosed else { return }
        wait(.linger)
        let done = context.eventLoop.makePromise(of: Void.self)
        done.futureResult.assumeIsolatedUnsafeUnchecked().whenComplete { [self] _ in close() }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: done)
    }

    /// Ends it; the transaction does not hear of it.
    func close(reset: Bool = false) {
        transaction = nil
        guard let context, !isClosed else { return }
        isClosed = true
        if reset { context.channel.resetOnClose() }
        context.close(promise: nil)
    }

    // MARK: what comes in

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        inbound.absorb(unwrapInboundIn(data))
        guard let transaction else {
            // Bytes that nobody asked for: whose answer would they be?
            pool.remove(self)
            if isResting { pool.distrust(generation) }
            return close()
        }
        transaction.received(self)
        if inbound.readableBytes == 0 { inbound = ByteBuffer() }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        flush()
        if let transaction { transaction.upstreamReadComplete(self) } else if !isClosed { context.read() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? ChannelEvent, event == .inputClosed else { return }
        inputEnded = true
        guard let transaction else {
            pool.remove(self)
            return close()
        }
        transaction.upstreamInputEnded(self)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if isWritable { transaction?.upstreamWritable() }
    }
}

extension Channel {
    /// The next close sends RST instead of FIN, so that the peer sees truncation (socket(7), SO_LINGER).
    func resetOnClose() {
        guard let provider = self as? any SocketOptionProvider else { return }
        _ = provider.setSoLinger(linger(l_onoff: 1, l_linger: 0))
    }
}
