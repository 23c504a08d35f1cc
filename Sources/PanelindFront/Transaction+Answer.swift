//  Transaction+Answer.swift
//  The worker's answer on its way to the client: interim heads, the final one, the body, the end.
//  Read Transaction.swift and ResponseHead.swift first.

import NIOCore
import PanelindCore
import PanelindHTTP

extension Transaction {
    private static let interimLimit = 32

    /// Bytes came from the worker.
    func received(_ connection: UpstreamConnection) {
        guard !isOver, upstream === connection else { return }
        if isTunnel { return takeTunnelBytes(connection) }
        var out = front.gather
        front.gather = ByteBuffer()
        out.clear()
        let next = take(connection, &out)
        if out.readableBytes > 0 { client.write(out) }
        if out.capacity <= 4 * ByteBuffer.smallPiece { front.gather = out }
        switch next {
        case .more: break
        case .finished: finish()
        case .broken(let fault): broken(fault)
        case .tunnel: startTunnel(connection)
        }
    }

    private enum Next { case more, finished, tunnel, broken(ResponseFault) }

    private func take(_ connection: UpstreamConnection, _ out: inout ByteBuffer) -> Next {
        while answer == nil {
            do throws(ResponseFault) {
                guard let plan = try takeHead(connection, &out), !isOver else { return .more }
                if plan.status == 101 { return .tunnel }
            } catch {
                return .broken(error)
            }
        }
        while true {
            let piece: BodyDecoder.Piece
            do throws(BodyFault) { piece = try answerBody.next(&connection.inbound) } catch { return .broken(.chunk) }
            switch piece {
            case .data(let bytes): send(bytes, &out)
            case .more: return .more
            case .end:
                if isChunked {
                    do throws(HeadFault) { try endChunks(&out) } catch { return .broken(.chunk) }
                }
                return .finished
            }
        }
    }

    private func send(_ bytes: ByteBuffer, _ out: inout ByteBuffer) {
        responseBytes += bytes.readableBytes
        if isChunked { out.writeChunkHead(bytes.readableBytes) }
        if bytes.readableBytes <= ByteBuffer.smallPiece {
            out.writeImmutableBuffer(bytes)
        } else {
            client.write(out)
            out.clear()
            client.write(bytes)
        }
        if isChunked { out.writeStaticString("\r\n") }
    }

    private func endChunks(_ out: inout ByteBuffer) throws(HeadFault) {
        out.writeStaticString("0\r\n")
        if plan.wantsTrailers { try front.writeTrailers(of: answerBody, into: &out) }
        out.writeStaticString("\r\n")
    }

    // MARK: heads

    /// Takes one head off what came: writes it for the client, or remembers what it means. Nil while none is whole.
    private func takeHead(
        _ connection: UpstreamConnection, _ out: inout ByteBuffer
    ) throws(ResponseFault) -> ResponsePlan? {
        let result: Result<(ResponsePlan, Int)?, ResponseFault> = connection.inbound.withUnsafeReadableBytes { raw in
            do throws(ResponseFault) { return .success(try judge(raw, &out)) } catch { return .failure(error) }
        }
        guard let (judged, count) = try result.get() else {
            touch(connection)
            return nil
        }
        connection.inbound.moveReaderIndex(forwardBy: count)
        answerEnd = HeadEnd()
        if judged.isInterim {
            interimAnswers += 1
            if interimAnswers > Self.interimLimit { throw .tooManyInterim }
            if judged.status == 100, continues == .awaited {
                continues = .given
                pump()
            }
            touch(connection)
            return judged
        }
        if judged.status == 101 {
            guard plan.asksUpgrade, judged.upgrades else { throw .upgrade }
            return judged
        }
        isTouched = true
        connection.wait(.write)
        answer = judged
        answerBody = BodyDecoder(judged.body)
        headGoesOut()
        front.answered(id, .head(judged.isEventStream ? .stream : .plain))
        return judged
    }

    /// Judges a head and writes it for the client.
    private func judge(
        _ raw: UnsafeRawBufferPointer, _ out: inout ByteBuffer
    ) throws(ResponseFault) -> (ResponsePlan, Int)? {
        let count: Int
        do throws(HeadFault) {
            guard let found = try answerEnd.find(in: raw) else { return nil }
            count = found
            try front.lines.cut(UnsafeRawBufferPointer(rebasing: raw[..<count]))
        } catch {
            throw .head(error)
        }
        let head = UnsafeRawBufferPointer(rebasing: raw[..<count])
        let judged = try ResponseHead.judge(head, front.lines, toHead: plan.isHead)
        var shape = AnswerShape()
        if judged.isInterim {
            // HTTP/1.0 knows no interim answers; a 100 goes to those who asked, once (RFC 9110 section 15.2).
            let isWanted = !plan.isHTTP10 && (judged.status != 100 || continues == .awaited)
            if isWanted { judged.write(head, front.lines, shape, into: &out) }
            return (judged, count)
        }
        if judged.status == 101 {
            shape.persistence = .upgrade
            if plan.asksUpgrade, judged.upgrades { judged.write(head, front.lines, shape, into: &out) }
            return (judged, count)
        }
        isChunked = !plan.isHTTP10 && (judged.body == .chunked || judged.body == .untilClose)
        endsWithConnection = plan.isHTTP10 && (judged.body == .chunked || judged.body == .untilClose)
        // A body that the client may never send whole: after this answer nobody would know where a request begins.
        closesClient = !plan.keepsAlive || !isRequestWhole || endsWithConnection || front.admission.isLastCall
        shape.chunked = isChunked
        shape.trailers = isChunked && plan.wantsTrailers
        shape.persistence = closesClient ? .close : plan.isHTTP10 ? .keepAndSay : .keep
        if !judged.hasDate { shape.date = front.date() }
        judged.write(head, front.lines, shape, into: &out)
        return (judged, count)
    }

    /// The worker has begun. An interim answer is a sign of life, but not yet what `serve.responseTimeout` waits for.
    private func touch(_ connection: UpstreamConnection) {
        if isOver { return }
        let hasBegun = connection.inbound.readableBytes > 0
        if continues != .awaited, hasBegun || interimAnswers > 0 { connection.wait(hasBegun ? .write : .answer) }
        guard !isTouched, hasBegun || interimAnswers > 0 else { return }
        isTouched = true
        front.answered(id, .firstByte)
    }

    // MARK: the connection

    /// All that one read brought has been used.
    func upstreamReadComplete(_ connection: UpstreamConnection) {
        guard upstream === connection else { return }
        client.settle(active: true)
        if upstream === connection, client.isWritable { connection.read() }
    }

    /// The client takes more again.
    func clientWritable() { upstream?.read() }

    /// The worker ended its side.
    func upstreamInputEnded(_ connection: UpstreamConnection) {
        guard upstream === connection, !isOver else { return }
        if isTunnel { return tunnelInputEnded(fromClient: false) }
        if answer != nil, answerBody.endsWithConnection {
            endUnframed(connection.generation)
        } else {
            upstreamLost()
        }
        client.settle(active: true)
    }

    /// A body ended with its connection: whole if the worker lives on, truncated if that was its death, of which the
    /// kernel tells a moment later. A worker that is to go anyway, or has been replaced, ends it as it likes.
    private func endUnframed(_ generation: Generation) {
        guard front.routesOnly(to: generation) else { return finishUnframed() }
        isUnframedEnd = true
        wait(.milliseconds(20)) { transaction in
            if transaction.front.routesOnly(to: generation) { return transaction.finishUnframed() }
            // Something happened to it. A death is known as one when all of it is gone: `Front.forget`.
            transaction.wait(.seconds(1)) { $0.finishUnframed() }
        }
    }

    private func wait(_ time: TimeAmount, then act: @escaping (Transaction) -> Void) {
        front.loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: time) { [self] in
            guard !isOver else { return }
            act(self)
            client.settle(active: true)
        }
    }

    private func finishUnframed() {
        if isChunked { client.write(ByteBuffer(staticString: "0\r\n\r\n")) }
        finish()
    }

    /// The connection is gone.
    func upstreamEnded(_ connection: UpstreamConnection, reset: Bool) {
        guard upstream === connection, !isOver, !isUnframedEnd else { return }
        if isTunnel {
            upstream = nil
            endTunnel(reset: reset)
        } else {
            upstreamLost()
        }
        client.settle(active: true)
    }
}
