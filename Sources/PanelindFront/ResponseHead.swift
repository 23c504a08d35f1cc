//  ResponseHead.swift
//  Whether an answer of the worker may reach the client, and how its body is framed (CONTRACT 5: broken is 502).
//  Pure: bytes in, a plan or a fault out. Read HeadScanner.swift and RequestHead.swift first.

/// A judged answer.
struct ResponsePlan {
    /// 100...599
    var status = 0
    var body = BodyFraming.none
    /// Of HEAD and 304: the length that GET would have had, to be passed on.
    var announcedLength: Int?
    /// The connection to the worker may be used again after it.
    var keepsAlive = true
    var isEventStream = false
    var hasDate = false
    /// `Connection` names fields of its own, which are dropped.
    var namesFields = false
    /// `Connection: upgrade` with an `Upgrade` field.
    var upgrades = false

    /// 1xx but 101.
    var isInterim: Bool { status < 200 && status != 101 }
}

/// Why a worker's answer is not passed on.
enum ResponseFault: Error, Hashable, CustomStringConvertible {
    case head(HeadFault)
    case statusLine, contentLength, transferEncoding, lengthAndCoding, chunk
    /// 101 that nobody asked for.
    case upgrade
    /// More interim answers than anybody needs.
    case tooManyInterim
    /// It ended before its head or its body did.
    case truncated
    /// No byte of it came in `serve.responseTimeout`.
    case timedOut
    /// The connection broke before any byte of it.
    case noAnswer
    /// The worker does not accept connections.
    case unreachable

    /// For the log.
    var description: String {
        switch self {
        case .head(.tooLong): "upstream_head_too_long"
        case .head(.tooManyFields): "upstream_too_many_fields"
        case .head: "upstream_invalid_head"
        case .statusLine: "upstream_invalid_status_line"
        case .contentLength: "upstream_invalid_content_length"
        case .transferEncoding: "upstream_invalid_transfer_encoding"
        case .lengthAndCoding: "upstream_length_and_coding"
        case .chunk: "upstream_invalid_chunk"
        case .upgrade: "upstream_unasked_upgrade"
        case .tooManyInterim: "upstream_too_many_interim_answers"
        case .truncated: "upstream_truncated"
        case .timedOut: "upstream_timed_out"
        case .noAnswer: "upstream_closed"
        case .unreachable: "upstream_unreachable"
        }
    }
}

/// The judge of answers.
enum ResponseHead {
    /// Judges a head that was cut.
    ///
    /// - Parameter toHead: the request was HEAD.
    static func judge(
        _ head: UnsafeRawBufferPointer, _ lines: HeadLines, toHead: Bool
    ) throws(ResponseFault) -> ResponsePlan {
        var plan = ResponsePlan()
        let isHTTP10 = try judgeStatusLine(head, lines.startLineEnd, &plan)
        var length: Int?
        var coding: UnsafeRawBufferPointer?
        var connection = ConnectionOptions()
        var hasUpgrade = false
        for line in lines.fields {
            switch line.name {
            case .other, .hopByHop, .trailer, .te, .host, .expect, .forwardedFor, .forwardedProto, .forwardedHost,
                .requestID:
                continue
            case .date: plan.hasDate = true
            case .contentType: plan.isEventStream = isEventStream(HeadLines.value(line, head))
            case .contentLength:
                guard length == nil, let number = Bytes.decimal(HeadLines.value(line, head)) else {
                    throw .contentLength
                }
                length = number
            case .transferEncoding:
                guard coding == nil, !isHTTP10 else { throw .transferEncoding }
                coding = HeadLines.value(line, head)
            case .connection: connection.take(HeadLines.value(line, head))
            case .upgrade: hasUpgrade = true
            }
        }
        if let coding {
            if length != nil { throw .lengthAndCoding }
            guard FieldName.equals(coding, "chunked") else { throw .transferEncoding }
        }
        plan.keepsAlive = !isHTTP10 && !connection.close
        plan.namesFields = connection.namesFields
        plan.upgrades = connection.upgrade && hasUpgrade
        frame(&plan, length, isChunked: coding != nil, toHead: toHead)
        return plan
    }

    /// RFC 9112 section 6.3. Whatever follows a head that has no body ends the connection to the worker.
    private static func frame(_ plan: inout ResponsePlan, _ length: Int?, isChunked: Bool, toHead: Bool) {
        switch plan.status {
        case 100..<200: return
        case 204, 205:
            // Bytes may follow against the rules: they are never read as an answer.
            if isChunked || (length ?? 0) > 0 { plan.keepsAlive = false }
            if plan.status == 205, length == nil { plan.keepsAlive = false }
        case 304:
            plan.announcedLength = length
        default:
            if toHead {
                plan.announcedLength = length
            } else if isChunked {
                plan.body = .chunked
            } else if let length {
                plan.body = length > 0 ? .length(length) : .none
            } else {
                plan.body = .untilClose
                plan.keepsAlive = false
            }
        }
    }

    /// `HTTP/1.x NNN reason`; returns whether it is HTTP/1.0.
    private static func judgeStatusLine(
        _ head: UnsafeRawBufferPointer, _ end: Int, _ plan: inout ResponsePlan
    ) throws(ResponseFault) -> Bool {
        guard end >= 12, FieldName.equals(UnsafeRawBufferPointer(rebasing: head[..<7]), "http/1."), head[0] == 0x48,
            head[7] == 0x30 || head[7] == 0x31, head[8] == 0x20,
            let status = Bytes.decimal(UnsafeRawBufferPointer(rebasing: head[9..<12])), (100...599).contains(status),
            end == 12 || head[12] == 0x20
        else { throw .statusLine }
        for byte in head[12..<end] where !Bytes.isValue(byte) { throw .statusLine }
        plan.status = status
        return head[7] == 0x30
    }

    private static func isEventStream(_ value: UnsafeRawBufferPointer) -> Bool {
        let type = value.prefix { $0 != 0x3b && $0 != 0x20 && $0 != 0x09 }
        return FieldName.equals(UnsafeRawBufferPointer(rebasing: type), "text/event-stream")
    }
}
