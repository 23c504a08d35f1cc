//  Prober.swift
//  One attempt of one probe, without waiting on the loop: connect, ask, judge the head of the answer, close.
//  Schedule and verdict are Core's; a late answer is Core's to ignore. Read ProbeTarget and AnswerHead first.

import Glibc
import NIOCore
import NIOPosix
import PanelindCore

/// How an attempt ended.
public enum ProbeOutcome: Hashable, Sendable {
    /// It passed; the status where there was one.
    case passed(Int?)
    /// It failed: `connection refused`, `HTTP 503`, `timed out after 1s`, `invalid answer`.
    case failed(String)
}

/// Asks probes on a loop; on the loop's thread only.
public final class Prober {
    private let loop: any EventLoop
    private let version: String

    /// Makes a prober; `version` goes into `User-Agent`.
    public init(loop: any EventLoop, version: String) {
        self.loop = loop
        self.version = version
    }

    /// Starts one attempt. The completion is called once, never from inside this call, and not after a cancel.
    ///
    /// - Parameter timeout: from now to the verdict; nil where the caller cancels by its own clock.
    public func ask(
        _ target: ProbeTarget, timeout: Duration? = nil, completion: @escaping (ProbeOutcome) -> Void
    ) -> ProbeAttempt {
        let attempt = ProbeAttempt(target: target, version: version, loop: loop, completion: completion)
        attempt.start(timeout: timeout)
        return attempt
    }
}

/// An attempt under way; let go of, it goes on.
public final class ProbeAttempt {
    private let target: ProbeTarget
    private let request: ByteBuffer
    private let loop: any EventLoop
    private var completion: ((ProbeOutcome) -> Void)?
    private var timer: Scheduled<Void>?
    private var channel: (any Channel)?
    private var nextAddress = 0
    private var head = AnswerHead()

    fileprivate init(
        target: ProbeTarget, version: String, loop: any EventLoop, completion: @escaping (ProbeOutcome) -> Void
    ) {
        self.target = target
        request = target.request(version: version)
        self.loop = loop
        self.completion = completion
    }

    /// Ends the attempt without a verdict.
    public func cancel() {
        completion = nil
        release()
    }

    fileprivate func start(timeout: Duration?) {
        let loop = loop.assumeIsolatedUnsafeUnchecked()
        if let timeout {
            timer = loop.scheduleTask(in: .nanoseconds(timeout.nanoseconds)) { [self] in
                finish(.failed("timed out after \(timeout.text)"))
            }
        }
        // Not from inside `ask`: an address that fails at once must not answer before the caller has the attempt.
        loop.execute { [self] in connect(after: nil) }
    }

    private func connect(after failure: String?) {
        guard completion != nil else { return }
        guard nextAddress < target.addresses.count else {
            return finish(.failed(failure ?? "no address"))
        }
        let address = target.addresses[nextAddress]
        nextAddress += 1
        let bound = NIOLoopBound(self, eventLoop: loop)
        ClientBootstrap(group: loop)
            // The caller's clock decides; this bound is only for a caller that forgot it.
            .connectTimeout(.seconds(120))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    bound.value.channel = channel
                    try channel.pipeline.syncOperations.addHandler(ProbeHandler(bound.value))
                }
            }
            .connect(to: address)
            .assumeIsolatedUnsafeUnchecked()
            .whenComplete { [self] result in
                switch result {
                case .success(let channel):
                    if completion == nil { channel.close(promise: nil) }
                case .failure(let error): connect(after: Self.text(error))
                }
            }
    }

    fileprivate func connected(_ context: ChannelHandlerContext) {
        guard request.readableBytes > 0 else { return finish(.passed(nil)) }
        context.writeAndFlush(NIOAny(request), promise: nil)
    }

    fileprivate func received(_ bytes: ByteBuffer) {
        guard completion != nil else { return }
        switch head.take(bytes.readableBytesView) {
        case .more: return
        case .status(let status): finish(target.passes(status) ? .passed(status) : .failed("HTTP \(status)"))
        case .invalid: finish(.failed("invalid answer"))
        }
    }

    fileprivate func ended() { finish(.failed(head.isEmpty ? "closed without an answer" : "invalid answer")) }

    fileprivate func failed(_ error: any Error) { finish(.failed(Self.text(error))) }

    private func finish(_ outcome: ProbeOutcome) {
        guard let completion else { return }
        self.completion = nil
        release()
        completion(outcome)
    }

    private func release() {
        timer?.cancel()
        timer = nil
        channel?.close(promise: nil)
        channel = nil
    }

    /// An error of the socket as a word or two: the probe's log line says the rest.
    private static func text(_ error: any Error) -> String {
        switch error {
        case let error as IOError: return ProbeErrors.text(error.errnoCode)
        case ChannelError.connectTimeout: return "connection timed out"
        default: return "connection failed"
        }
    }
}

/// The words for errors of a socket (errno(3)).
public enum ProbeErrors {
    /// Two or three words for this error.
    public static func text(_ code: CInt) -> String {
        switch code {
        case ECONNREFUSED: "connection refused"
        case ECONNRESET: "connection reset"
        case EPIPE: "connection closed"
        case ENOENT: "no such socket"
        case EACCES, EPERM: "permission denied"
        case ELOOP: "a loop of links"
        case EPROTOTYPE, ENOTSOCK: "no stream socket"
        case EHOSTUNREACH: "host unreachable"
        case ENETUNREACH: "network unreachable"
        case ETIMEDOUT: "connection timed out"
        case EADDRNOTAVAIL: "address not available"
        case EAGAIN: "the socket's queue is full"
        case EMFILE, ENFILE: "no descriptor is free"
        default: "errno \(code)"
        }
    }
}

/// Hands a channel's events to its attempt.
private final class ProbeHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let attempt: ProbeAttempt

    init(_ attempt: ProbeAttempt) { self.attempt = attempt }

    /// Before this a failed connect is the bootstrap's to report: the next address may do.
    private var wasActive = false

    func channelActive(context: ChannelHandlerContext) {
        wasActive = true
        attempt.connected(context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { attempt.received(unwrapInboundIn(data)) }

    func channelInactive(context: ChannelHandlerContext) {
        if wasActive { attempt.ended() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if wasActive { attempt.failed(error) }
    }
}
