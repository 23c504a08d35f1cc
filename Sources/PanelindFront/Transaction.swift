//  Transaction.swift
//  One request on its way to a worker and back: what Admission says is done here, and it is told what happened.
//  The answer's way back is Transaction+Answer.swift, tunnels are Transaction+Tunnel.swift. Read Front.swift first.

import Glibc
import NIOCore
import PanelindCore
import PanelindHTTP

/// A request from its whole head to its end; it ends once.
final class Transaction {
    /// Who has asked to see `100 Continue`, and whether the body may go.
    enum Continue { case notAsked, awaited, given }

    var id = RequestID(number: 0)
    let plan: RequestPlan
    /// As it goes to the worker; kept for a second attempt.
    let head: ByteBuffer
    let front: Front
    let client: ClientConnection
    private let startedAt: Instant

    private(set) var generation: Generation?
    var upstream: UpstreamConnection?
    /// It ended: nothing more is done for it.
    private(set) var isOver = false
    var continues: Continue

    private(set) var body: BodyDecoder
    /// Its framing was broken: nobody knows where the next request begins.
    private var isBodyBad = false
    private(set) var requestBytes = 0
    /// The worker closed or broke off what it was sent.
    private var isDeafUpstream = false

    var answerEnd = HeadEnd()
    var answer: ResponsePlan?
    var answerBody = BodyDecoder(.none)
    var responseBytes = 0
    /// A byte of the answer has come.
    var isTouched = false
    var interimAnswers = 0
    /// The answer goes out in chunks; known once `answer` is.
    var isChunked = false
    /// An HTTP/1.0 client knows the answer's end by the connection alone: only RST tells truncation from it.
    var endsWithConnection = false
    /// The answer's body ended with its connection; whether that was the worker's death is not known yet.
    var isUnframedEnd = false
    /// The client's connection ends with this answer.
    var closesClient = false
    var isTunnel = false
    var tunnelEnds = 0
    private var headAt: Instant?
    private var reason: String?

    init(client: ClientConnection, front: Front, plan: RequestPlan, head: ByteBuffer) {
        self.client = client
        self.front = front
        self.plan = plan
        self.head = head
        body = BodyDecoder(plan.body)
        continues = plan.expectsContinue ? .awaited : .notAsked
        startedAt = front.clock()
    }

    /// Asks Admission what to do with it.
    func arrive() { front.arrive(self, bytes: head.readableBytes, canRetry: plan.canRetry) }

    /// Everything the client wants to say has been read.
    var isRequestWhole: Bool { body.isWhole }

    /// The client's bytes are wanted now.
    var wantsBody: Bool {
        !isOver && !body.isWhole && continues != .awaited && !isDeafUpstream && upstream?.isWritable == true
    }

    // MARK: what Admission says

    func forward(to generation: Generation) {
        self.generation = generation
        reason = nil  // What went wrong before is not how it ends.
        front.upstreams.connect(self, to: generation, fresh: false)
    }

    /// 503: no worker, no room, or no time.
    func refuse(_ refusal: Refusal, retryAfter: Duration) {
        let seconds = max(1, (retryAfter.nanoseconds + 999_999_999) / 1_000_000_000)
        let detail: String
        switch refusal {
        case .notReady(let why):
            detail = "no worker can take the request: \(why.rawValue)"
            reason = why.rawValue
        case .queueFull:
            (detail, reason) = ("too many requests wait for a worker", "queue_full")
        case .holdOver:
            (detail, reason) = ("no worker became ready in time", "hold_over")
        }
        end(answering: 503, detail, fields: ["Retry-After: \(seconds)"])
    }

    /// 502: the worker broke off before it answered.
    func fail() { end(answering: 502, "the worker ended before it answered") }

    /// 504: cut before the worker answered.
    func timeOut() {
        reason = reason ?? "cut"
        end(answering: 504, "the worker did not answer before it had to stop")
    }

    /// Broken off after the worker began to answer.
    func abort() {
        reason = reason ?? "cut"
        end(answering: nil, "")
    }

    // MARK: the connection to the worker

    /// Whether a connection for this is still wanted.
    func isConnecting(to generation: Generation) -> Bool {
        !isOver && upstream == nil && self.generation == generation
    }

    /// It was sent to this generation and has no whole answer.
    func isWith(_ generation: Generation) -> Bool { !isOver && self.generation == generation && upstream != nil }

    func attach(_ connection: UpstreamConnection) {
        guard isConnecting(to: connection.generation) else { return connection.close() }
        upstream = connection
        connection.begin(self)
        if continues == .awaited { connection.wait(.head) }
        connection.write(head)
        pump()
        connection.read()
        client.settle(active: false)
    }

    /// No connection: not a byte of the request has left. A worker that is starting anew, or dead and not yet known
    /// to be, is waited for.
    func unreachable(_ error: CInt) {
        guard !isOver, upstream == nil else { return }
        reason = ResponseFault.unreachable.description
        front.unreachable(id, at: generation.take(), error)
    }

    /// The worker is writable again.
    func upstreamWritable() {
        pump()
        client.settle(active: false)
    }

    /// `100 Continue` did not come: the worker may not know it, and neither side would ever go on (RFC 9110 10.1.1).
    func continueTimedOut() {
        guard continues == .awaited, !isOver else { return }
        upstream?.wait(.answer)
        giveContinue()
    }

    /// Tells the client to send its body.
    func giveContinue() {
        continues = .given
        client.write(ByteBuffer(staticString: "HTTP/1.1 100 Continue\r\n\r\n"))
        pump()
        client.settle(active: true)
    }

    // MARK: the body to the worker

    /// Moves what has come of the body to the worker, as far as it takes it.
    func pump() {
        if continues == .awaited, client.inbound.readableBytes > 0 {
            // A client need not wait for `100 Continue` (RFC 9110 section 10.1.1): this one has gone ahead.
            continues = .given
            upstream?.wait(.answer)
        }
        while wantsBody, let upstream {
            let piece: BodyDecoder.Piece
            do throws(BodyFault) { piece = try body.next(&client.inbound) } catch {
                return badBody(error)
            }
            switch piece {
            case .data(let bytes):
                requestBytes += bytes.readableBytes
                if let limit = front.settings.bodyLimit, requestBytes > limit { return bodyTooLong() }
                upstream.waitAnew(.answer)
                send(bytes, to: upstream)
            case .end: break
            case .more:
                upstream.flush()
                if client.inputEnded { clientTruncated() }
                return
            }
        }
        if body.isWhole, let upstream, plan.body == .chunked, !isDeafUpstream { endChunks(upstream) }
        upstream?.flush()
    }

    private func send(_ bytes: ByteBuffer, to upstream: UpstreamConnection) {
        if plan.body == .chunked {
            var chunk = ByteBuffer()
            chunk.writeChunkHead(bytes.readableBytes)
            if bytes.readableBytes <= ByteBuffer.smallPiece {
                chunk.writeImmutableBuffer(bytes)
                chunk.writeStaticString("\r\n")
                upstream.write(chunk)
            } else {
                upstream.write(chunk)
                upstream.write(bytes)
                upstream.write(ByteBuffer(staticString: "\r\n"))
            }
        } else {
            upstream.write(bytes)
        }
    }

    private var chunksEnded = false

    private func endChunks(_ upstream: UpstreamConnection) {
        if chunksEnded { return }
        chunksEnded = true
        var last = ByteBuffer()
        last.writeStaticString("0\r\n")
        do throws(HeadFault) {
            try front.writeTrailers(of: body, into: &last)
        } catch {
            return badBody(.chunk)
        }
        last.writeStaticString("\r\n")
        upstream.write(last)
    }

    private func badBody(_ fault: BodyFault) {
        isBodyBad = true
        reason = "invalid_body"
        front.refused(HeadRefusal(400, "an invalid chunk in a body"), peer: client.peerText)
        endOnOwn(answering: 400, "an invalid chunk in the body")
    }

    private func bodyTooLong() {
        reason = "body_too_long"
        front.refused(HeadRefusal(413, "a body beyond serve.bodyLimit"), peer: client.peerText)
        endOnOwn(answering: 413, "the body is too long")
    }

    /// The client ended its side in the middle of its body.
    private func clientTruncated() {
        reason = "client_truncated"
        front.refused(HeadRefusal(400, "a body that ended too early"), peer: client.peerText)
        endOnOwn(answering: 400, "the body ended too early")
    }

    /// The client's body stopped coming.
    func bodyTimedOut() {
        reason = "body_timed_out"
        front.refused(HeadRefusal(408, "a body that stopped"), peer: client.peerText)
        endOnOwn(answering: 408, "the body took too long")
    }

    // MARK: ends

    /// `serve.responseTimeout` is over.
    func answerTimedOut() {
        guard !isOver, answer == nil else { return }
        // It is the client that takes its time, and has limits of its own.
        if wantsBody { return }
        reason = ResponseFault.timedOut.description
        endOnOwn(answering: 504, "the worker did not answer in time")
    }

    /// The worker's answer is broken: 502, or truncation where it had begun.
    func broken(_ fault: ResponseFault) {
        reason = fault.description
        endOnOwn(answering: 502, "the worker's answer is invalid")
    }

    /// The client is gone.
    func clientGone(cleanly: Bool) {
        guard !isOver else { return }
        // A FIN after the one that was passed on closes the channel at once, and is told by nothing else.
        if cleanly, isTunnel, tunnelEnds & 2 != 0 { return endTunnel(reset: false) }
        reason = reason ?? "client_closed"
        let status = answer?.status ?? 499
        close(status: status)
        front.ended(id)
    }

    /// The worker's connection is over without a whole answer.
    func upstreamLost() {
        let wasReused = upstream?.isReused ?? false
        upstream?.close()
        upstream = nil
        guard let generation, !isOver else { return }
        if wasReused, !isTouched, plan.canRetry {
            // Kept open and closed by the worker at the moment it was used: no sign of a death.
            return front.upstreams.connect(self, to: generation, fresh: true)
        }
        reason = (isTouched ? ResponseFault.truncated : ResponseFault.noAnswer).description
        front.lost(id, unsent: false)
    }

    /// The answer went out whole.
    func finish() {
        let connection = upstream
        upstream = nil
        close(status: answer?.status ?? 0)
        if let connection {
            if isTunnel {
                connection.closeWhenSent()
            } else if connection.inbound.readableBytes > 0 {
                front.upstreams.distrust(connection.generation)
                connection.close()
            } else if body.isWhole, continues != .awaited, answer?.keepsAlive == true {
                front.upstreams.give(connection)
            } else {
                connection.close()
            }
        }
        front.ended(id)
        client.transactionEnded(closing: closesClient)
        client.settle(active: true)
    }

    /// Ends by the front's own judgement; Admission is told.
    func endOnOwn(answering status: Int?, _ detail: String) {
        if isOver { return }
        end(answering: status, detail)
        front.ended(id)
    }

    /// Ends with an answer of our own, or cuts the client off where the worker's has begun.
    private func end(answering status: Int?, _ detail: String, fields: [String] = []) {
        if isOver { return }
        let hasBegun = answer != nil
        close(status: hasBegun ? answer?.status ?? 0 : status ?? 0, isCut: hasBegun && reason != nil)
        guard let status, !hasBegun else {
            return client.abort(reset: isTunnel || endsWithConnection)
        }
        let closes = !plan.keepsAlive || !body.isWhole || isBodyBad || front.admission.isLastCall
        client.answer(
            status: status, detail: detail, fields: fields, headOnly: plan.isHead,
            persistence: closes ? .close : plan.isHTTP10 ? .keepAndSay : .keep)
    }

    /// Lets go of the worker and tells who keeps accounts.
    private func close(status: Int, isCut: Bool = false) {
        isOver = true
        upstream?.close(reset: isTunnel && tunnelEnds == 0)
        upstream = nil
        let now = front.clock()
        front.onFinished(
            FinishedRequest(
                status: status, duration: now - startedAt, untilHead: headAt.map { $0 - startedAt },
                isLasting: isTunnel || answer?.isEventStream == true, requestBytes: requestBytes,
                responseBytes: responseBytes, reason: reason, isCut: isCut, isHTTP10: plan.isHTTP10,
                peer: client.peerText, head: head))
    }

    /// The final head goes out now.
    func headGoesOut() { headAt = front.clock() }
}

extension ByteBuffer {
    /// Appends what was read; what was used up before is let go of from time to time.
    mutating func absorb(_ more: ByteBuffer) {
        if readableBytes == 0 {
            self = more
            return
        }
        if readerIndex > 16 * 1024, readerIndex > readableBytes { discardReadBytes() }
        writeImmutableBuffer(more)
    }

    /// Up to this size a piece is copied into the write of its neighbours, beyond it goes by itself.
    static let smallPiece = 8 * 1024

    init(staticString: StaticString) {
        self.init()
        writeStaticString(staticString)
    }

    /// The line before a chunk.
    mutating func writeChunkHead(_ count: Int) { writeString(String(count, radix: 16) + "\r\n") }
}

extension Front {
    /// Writes those trailers of a body that may be relayed.
    func writeTrailers(of body: BodyDecoder, into buffer: inout ByteBuffer) throws(HeadFault) {
        let section = body.trailers
        guard section.readableBytes > 0 else { return }
        let result: Result<Void, HeadFault> = section.withUnsafeReadableBytes { raw in
            do throws(HeadFault) {
                try lines.cutTrailers(raw)
                return .success(lines.writeTrailers(raw, into: &buffer))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }
}
