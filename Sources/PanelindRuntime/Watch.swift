//  Watch.swift
//  A descriptor that wakes the loop: signalfd, an eventfd, a pipe of a worker.
//  Read by NIO with a small fixed buffer; what was read goes to one closure on the loop's thread.

import Glibc
import NIOCore
import NIOPosix

/// A watch over a descriptor that somebody else keeps, for as long as the process lives: without it panelind would be
/// deaf, so one that ends, or has no descriptor of its own to begin with, is begun again.
final class LastingWatch {
    private static let pause: TimeAmount = .milliseconds(100)
    private let descriptor: Int32
    private let loop: any EventLoop
    private let onBytes: (ByteBuffer) -> Void
    private var watch: Watch?

    init(_ descriptor: Int32, loop: any EventLoop, onBytes: @escaping (ByteBuffer) -> Void) {
        self.descriptor = descriptor
        self.loop = loop
        self.onBytes = onBytes
        begin()
    }

    private func begin() {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { return beginSoon() }
        watch = Watch(copy, loop: loop, onBytes: onBytes, onEnd: { [unowned self] in beginSoon() })
    }

    private func beginSoon() {
        loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: Self.pause) { [unowned self] in begin() }
    }
}

/// A channel over one descriptor that is only read.
final class Watch {
    private var channel: (any Channel)?
    private var isClosed = false

    /// Watches a descriptor and owns it from now on.
    ///
    /// - Parameters:
    ///   - descriptor: pollable by epoll and read by read(2): never a pidfd, which has no read.
    ///   - onBytes: what was read, in pieces of at most 4 KiB.
    ///   - onEnd: the other side closed; not called after `close`.
    init(
        _ descriptor: Int32, loop: any EventLoop, onBytes: @escaping (ByteBuffer) -> Void,
        onEnd: @escaping () -> Void = {}
    ) {
        let handler = NIOLoopBound(Handler(onBytes: onBytes, onEnd: onEnd), eventLoop: loop)
        let bound = NIOLoopBound(self, eventLoop: loop)
        NIOPipeBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4096))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(handler.value)
                }
            }
            .takingOwnershipOfDescriptor(input: descriptor)
            .whenComplete { result in
                let watch = bound.value
                switch result {
                case .success(let channel):
                    if watch.isClosed { channel.close(promise: nil) } else { watch.channel = channel }
                case .failure:
                    // The descriptor is of no kind that can be watched: as if it had ended.
                    Glibc.close(descriptor)
                    if !watch.isClosed { handler.value.onEnd() }
                }
            }
    }

    /// Stops watching and closes the descriptor.
    func close() {
        isClosed = true
        channel?.close(promise: nil)
        channel = nil
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let onBytes: (ByteBuffer) -> Void
        let onEnd: () -> Void

        init(onBytes: @escaping (ByteBuffer) -> Void, onEnd: @escaping () -> Void) {
            self.onBytes = onBytes
            self.onEnd = onEnd
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { onBytes(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { onEnd() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
