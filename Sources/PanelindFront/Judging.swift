//  Judging.swift
//  The pure judges behind one door, bytes in and plain values out: what the fuzzer asks and compares.
//  The daemon does not use it. Read RequestHead.swift, ResponseHead.swift and Body.swift first.

import NIOCore

/// What the front makes of bytes.
package enum Judging {
    /// A judgement.
    package enum Verdict<Value> {
        /// The head is not whole.
        case more
        /// The status of the refusal (0: of an answer) and its reason.
        case refused(Int, String)
        case accepted(Value)
    }

    /// Where a body ends.
    package enum Framing: Hashable {
        case none, chunked, untilClose
        case length(Int)

        init(_ framing: BodyFraming) {
            switch framing {
            case .none: self = .none
            case .length(let count): self = .length(count)
            case .chunked: self = .chunked
            case .untilClose: self = .untilClose
            }
        }

        var inner: BodyFraming {
            switch self {
            case .none: .none
            case .length(let count): .length(count)
            case .chunked: .chunked
            case .untilClose: .untilClose
            }
        }
    }

    /// One field as it came, without the space around its value.
    package struct Field: Hashable {
        package let name: [UInt8]
        package let value: [UInt8]
    }

    /// A request that would be served.
    package struct Request {
        /// Of the head, in bytes.
        package let count: Int
        package let method: [UInt8]
        /// As it came.
        package let target: [UInt8]
        package let fields: [Field]
        package let body: Framing
        package let isHTTP10: Bool
        package let keepsAlive: Bool
        package let expectsContinue: Bool
        package let asksUpgrade: Bool
        package let canRetry: Bool
        /// The head for the worker.
        package let forwarded: [UInt8]
    }

    /// An answer that would be passed on.
    package struct Answer {
        /// Of the head, in bytes.
        package let count: Int
        package let status: Int
        package let fields: [Field]
        package let body: Framing
        package let keepsAlive: Bool
        /// The head for a client of HTTP/1.1.
        package let forwarded: [UInt8]
    }

    /// Judges the head at the beginning of some bytes, and writes what the worker would get.
    package static func request(_ bytes: [UInt8], peer: String = "192.0.2.1", trusted: Bool) -> Verdict<Request> {
        bytes.withUnsafeBytes { raw in
            var lines = HeadLines()
            let count: Int
            do throws(HeadFault) {
                var end = HeadEnd()
                guard let found = try end.find(in: raw) else {
                    return RequestHead.isHopeless(raw) ? .refused(414, "hopeless") : .more
                }
                count = found
                try lines.cut(UnsafeRawBufferPointer(rebasing: raw[..<count]))
            } catch {
                let refusal = RequestHead.refusal(for: error, raw)
                return .refused(refusal.status, refusal.detail.description)
            }
            let head = UnsafeRawBufferPointer(rebasing: raw[..<count])
            do throws(RequestFault) {
                let plan = try RequestHead.judge(head, lines)
                var out = ByteBuffer()
                plan.write(
                    head, lines, Forwarding(peer: Array(peer.utf8), isTrusted: trusted, requestID: (1, 2)), into: &out)
                let target = head[..<lines.startLineEnd].dropFirst(plan.methodEnd + 1).prefix { $0 != 0x20 }
                return .accepted(
                    Request(
                        count: count, method: Array(head[..<plan.methodEnd]), target: Array(target),
                        fields: fields(head, lines), body: Framing(plan.body), isHTTP10: plan.isHTTP10,
                        keepsAlive: plan.keepsAlive, expectsContinue: plan.expectsContinue,
                        asksUpgrade: plan.asksUpgrade, canRetry: plan.canRetry, forwarded: Array(out.readableBytesView))
                )
            } catch {
                switch error {
                case .refused(let refusal): return .refused(refusal.status, refusal.detail.description)
                case .preface: return .refused(505, "an HTTP/2 preface")
                }
            }
        }
    }

    /// Judges the head at the beginning of a worker's bytes, and writes what the client would get.
    package static func answer(_ bytes: [UInt8], toHead: Bool) -> Verdict<Answer> {
        bytes.withUnsafeBytes { raw in
            var lines = HeadLines()
            do throws(HeadFault) {
                var end = HeadEnd()
                guard let count = try end.find(in: raw) else { return .more }
                let head = UnsafeRawBufferPointer(rebasing: raw[..<count])
                try lines.cut(head)
                do throws(ResponseFault) {
                    let plan = try ResponseHead.judge(head, lines, toHead: toHead)
                    var shape = AnswerShape()
                    shape.chunked = plan.body == .chunked || plan.body == .untilClose
                    shape.date = HTTPDate.text(0)
                    var out = ByteBuffer()
                    plan.write(head, lines, shape, into: &out)
                    return .accepted(
                        Answer(
                            count: count, status: plan.status, fields: fields(head, lines), body: Framing(plan.body),
                            keepsAlive: plan.keepsAlive, forwarded: Array(out.readableBytesView)))
                } catch {
                    return .refused(0, "\(error)")
                }
            } catch {
                return .refused(0, "\(error)")
            }
        }
    }

    /// What became of a body.
    package struct Body: Hashable {
        package var data: [UInt8] = []
        package var trailers: [UInt8] = []
        package var isWhole = false
        package var isBroken = false
        /// Bytes behind it.
        package var left = 0

        package init() {}
    }

    /// Takes a body that comes in pieces, each of which is read to its end.
    package static func body(_ framing: Framing, pieces: [ArraySlice<UInt8>]) -> Body {
        var decoder = BodyDecoder(framing.inner)
        var result = Body()
        var inbound = ByteBuffer()
        for piece in pieces {
            inbound.absorb(ByteBuffer(bytes: piece))
            do throws(BodyFault) {
                reading: while true {
                    switch try decoder.next(&inbound) {
                    case .data(let bytes): result.data += bytes.readableBytesView
                    case .more: break reading
                    case .end:
                        result.isWhole = true
                        break reading
                    }
                }
            } catch {
                result.isBroken = true
                return result
            }
        }
        result.trailers = Array(decoder.trailers.readableBytesView)
        result.left = inbound.readableBytes
        return result
    }

    private static func fields(_ head: UnsafeRawBufferPointer, _ lines: HeadLines) -> [Field] {
        lines.fields.map { Field(name: Array(HeadLines.name($0, head)), value: Array(HeadLines.value($0, head))) }
    }
}
