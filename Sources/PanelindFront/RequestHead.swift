//  RequestHead.swift
//  Whether a request may reach the worker, how its body is framed and what it wants of the connection (CONTRACT 5).
//  Pure: bytes in, a plan or a refusal out. Read HeadScanner.swift first; HeadWriter.swift writes what is forwarded.

import PanelindHTTP

/// Where a body ends (RFC 9112 section 6.3).
enum BodyFraming: Hashable {
    case none
    /// More than 0 bytes.
    case length(Int)
    case chunked
    /// Answers only: up to the end of the connection.
    case untilClose
}

/// A judged request.
struct RequestPlan {
    var methodEnd = 0
    /// What is forwarded as the target: in absolute form the part behind the authority, which may be empty.
    var target = 0..<0
    /// The target was in absolute form and named no path: `/`, or `*` for OPTIONS (RFC 9112 section 3.2.4).
    var emptyPathMeans: StaticString?
    /// Of a target in absolute form: what `Host` would say.
    var authority = 0..<0
    var body = BodyFraming.none
    var isHTTP10 = false
    /// The connection may be used again after the answer.
    var keepsAlive = true
    var expectsContinue = false
    /// `Connection: upgrade` with an `Upgrade` field that does not offer h2c.
    var asksUpgrade = false
    /// `TE: trailers`: the client understands trailers.
    var wantsTrailers = false
    var isHead = false
    /// GET, HEAD or OPTIONS without a body: it may be made twice.
    var canRetry = false
    /// `Connection` names fields of its own, which are dropped.
    var namesFields = false
}

/// Why no plan was made.
enum RequestFault: Error {
    /// Answered, then closed.
    case refused(HeadRefusal)
    /// An HTTP/2 preface: its sender would not understand an answer.
    case preface
}

/// The judge of request heads.
enum RequestHead {
    /// Judges a head that was cut.
    static func judge(
        _ head: UnsafeRawBufferPointer, _ lines: HeadLines
    ) throws(RequestFault) -> RequestPlan {
        var plan = RequestPlan()
        let absolute = try judgeStartLine(head, lines.startLineEnd, &plan)
        var host: UnsafeRawBufferPointer?
        var length: Int?
        var coding: UnsafeRawBufferPointer?
        var connection = ConnectionOptions()
        var upgrade = UpgradeOffer()
        var expectation: UnsafeRawBufferPointer?
        for line in lines.fields {
            switch line.name {
            case .other, .hopByHop, .trailer, .forwardedFor, .forwardedProto, .forwardedHost, .requestID,
                .contentType, .date:
                continue
            case .host:
                if host != nil { throw refusal(400, "more than one Host") }
                host = HeadLines.value(line, head)
            case .contentLength:
                if length != nil { throw refusal(400, "more than one Content-Length") }
                guard let number = Bytes.decimal(HeadLines.value(line, head)) else {
                    throw refusal(400, "an invalid Content-Length")
                }
                length = number
            case .transferEncoding:
                if coding != nil { throw refusal(400, "more than one Transfer-Encoding") }
                coding = HeadLines.value(line, head)
            case .connection: connection.take(HeadLines.value(line, head))
            case .upgrade: upgrade.take(HeadLines.value(line, head))
            case .te: if hasTrailers(HeadLines.value(line, head)) { plan.wantsTrailers = true }
            case .expect:
                if expectation != nil { throw refusal(417, "more than one Expect") }
                expectation = HeadLines.value(line, head)
            }
        }
        try judgeHost(host, absolute, plan.isHTTP10)
        if let coding {
            if length != nil { throw refusal(400, "Content-Length with Transfer-Encoding") }
            if plan.isHTTP10 { throw refusal(400, "Transfer-Encoding in HTTP/1.0") }
            guard FieldName.equals(coding, "chunked") else { throw codingRefusal(coding) }
            plan.body = .chunked
        } else if let length, length > 0 {
            plan.body = .length(length)
        }
        plan.keepsAlive = plan.isHTTP10 ? connection.keepAlive && !connection.close : !connection.close
        plan.namesFields = connection.namesFields
        if !plan.isHTTP10 {
            if let expectation {
                guard FieldName.equals(expectation, "100-continue") else {
                    throw refusal(417, "an expectation other than 100-continue")
                }
                plan.expectsContinue = plan.body != .none
            }
            plan.asksUpgrade = connection.upgrade && upgrade.isServed && plan.body == .none
        }
        let method = UnsafeRawBufferPointer(rebasing: head[..<plan.methodEnd])
        plan.isHead = isMethod(method, "HEAD")
        plan.canRetry =
            plan.body == .none && (plan.isHead || isMethod(method, "GET") || isMethod(method, "OPTIONS"))
        return plan
    }

    /// What the bytes so far say about a head that will never be whole or is none.
    static func refusal(for fault: HeadFault, _ bytes: UnsafeRawBufferPointer) -> HeadRefusal {
        switch fault {
        case .tooManyFields: return HeadRefusal(431, "more than 100 fields")
        case .tooLong:
            return HeadEnd.hasFirstLine(bytes)
                ? HeadRefusal(431, "a head of more than 64 KiB") : HeadRefusal(414, "a target of more than 16 KiB")
        case .lineEnd: return HeadRefusal(400, "a line that does not end in CR LF")
        case .startLine: return HeadRefusal(400, "an invalid request line")
        case .fieldName: return HeadRefusal(400, "an invalid field name")
        case .fieldValue: return HeadRefusal(400, "a control character in a field")
        case .folded: return HeadRefusal(400, "a folded field")
        }
    }

    /// An unfinished first line is already longer than any that is served.
    static func isHopeless(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count > Heads.method + Heads.target + 16 && !HeadEnd.hasFirstLine(bytes)
    }

    private static func refusal(_ status: Int, _ detail: StaticText) -> RequestFault {
        .refused(HeadRefusal(status, detail))
    }

    // MARK: the first line

    /// Judges method, target and version; returns the authority of an absolute target.
    private static func judgeStartLine(
        _ head: UnsafeRawBufferPointer, _ end: Int, _ plan: inout RequestPlan
    ) throws(RequestFault) -> Authority? {
        var index = 0
        while index < end, Bytes.isToken(head[index]) { index += 1 }
        guard index > 0, index < end, head[index] == 0x20 else { throw refusal(400, "an invalid method") }
        plan.methodEnd = index
        let method = UnsafeRawBufferPointer(rebasing: head[..<index])
        index += 1
        let start = index
        while index < end, head[index] > 0x20, head[index] < 0x7f { index += 1 }
        if index - start > Heads.target { throw refusal(414, "a target of more than 16 KiB") }
        guard index < end, head[index] == 0x20 else {
            // A long target may hide its bad byte behind the limit: length first, as the limit is.
            let rest = head[start..<end].prefix { $0 != 0x20 }
            if rest.count > Heads.target { throw refusal(414, "a target of more than 16 KiB") }
            throw refusal(400, "a byte that must be percent-encoded in the target, or no version")
        }
        guard index > start else { throw refusal(400, "an empty target") }
        try judgeVersion(UnsafeRawBufferPointer(rebasing: head[(index + 1)..<end]), method, &plan)
        if method.count > Heads.method { throw refusal(501, "a method of more than 32 bytes") }
        if isMethod(method, "CONNECT") || isMethod(method, "TRACE") {
            throw refusal(405, "CONNECT and TRACE are not served")
        }
        plan.target = start..<index
        let target = UnsafeRawBufferPointer(rebasing: head[plan.target])
        if target[0] == 0x2f { return nil }
        if target.count == 1, target[0] == 0x2a, isMethod(method, "OPTIONS") { return nil }
        guard let authority = Authority(ofTarget: target) else {
            throw refusal(400, "a target that is neither a path nor an http URL")
        }
        plan.authority = (start + authority.start)..<(start + authority.pathStart)
        plan.target = (start + authority.pathStart)..<index
        if plan.target.isEmpty {
            plan.emptyPathMeans = isMethod(method, "OPTIONS") ? "*" : "/"
        } else if head[plan.target.lowerBound] != 0x2f {
            plan.emptyPathMeans = "/"
        }
        return authority
    }

    private static func judgeVersion(
        _ version: UnsafeRawBufferPointer, _ method: UnsafeRawBufferPointer, _ plan: inout RequestPlan
    ) throws(RequestFault) {
        guard version.count == 8, isMethod(UnsafeRawBufferPointer(rebasing: version[..<5]), "HTTP/"),
            version[5] &- 0x30 < 10, version[6] == 0x2e, version[7] &- 0x30 < 10
        else { throw refusal(400, "an invalid version") }
        switch (version[5], version[7]) {
        case (0x31, 0x31): plan.isHTTP10 = false
        case (0x31, 0x30): plan.isHTTP10 = true
        case (0x32, 0x30) where isMethod(method, "PRI"): throw .preface
        default: throw refusal(505, "a version other than HTTP/1.0 and HTTP/1.1")
        }
    }

    /// Methods are compared as they are: `get` is none of ours (RFC 9110 section 9.1).
    private static func isMethod(_ bytes: UnsafeRawBufferPointer, _ method: StaticString) -> Bool {
        guard bytes.count == method.utf8CodeUnitCount else { return false }
        for index in 0..<bytes.count where bytes[index] != method.utf8Start[index] { return false }
        return true
    }

    // MARK: fields

    private static func judgeHost(
        _ host: UnsafeRawBufferPointer?, _ absolute: Authority?, _ isHTTP10: Bool
    ) throws(RequestFault) {
        if host == nil, !isHTTP10 { throw refusal(400, "no Host") }
        // Without Host the worker is told the authority of the target.
        guard let named = host ?? absolute?.bytes else { return }
        for byte in named {
            switch byte {
            case 0x00...0x20, 0x7f...0xff, UInt8(ascii: ","), UInt8(ascii: "/"), UInt8(ascii: "@"), UInt8(ascii: "?"),
                UInt8(ascii: "#"), UInt8(ascii: "\\"):
                throw refusal(400, "an invalid Host")
            default: continue
            }
        }
        guard hasValidPort(named) else { throw refusal(400, "an invalid Host") }
        if let absolute, let host, !absolute.names(host) { throw refusal(400, "a target with another host than Host") }
    }

    /// What follows the name, or the brackets of an address, is nothing or `:` and digits (RFC 3986 section 3.2.2).
    private static func hasValidPort(_ host: UnsafeRawBufferPointer) -> Bool {
        var end = 0
        if host.first == UInt8(ascii: "[") {
            guard let bracket = host.firstIndex(of: UInt8(ascii: "]")) else { return false }
            end = bracket + 1
        } else {
            end = host.firstIndex(of: UInt8(ascii: ":")) ?? host.count
        }
        guard end < host.count else { return true }
        return host[end] == UInt8(ascii: ":") && host[(end + 1)...].allSatisfy { $0 &- 0x30 < 10 }
    }

    /// 501 for codings that exist, 400 for anything else (RFC 9112 section 6.1).
    private static func codingRefusal(_ coding: UnsafeRawBufferPointer) -> RequestFault {
        for known: StaticString in ["gzip", "x-gzip", "deflate", "compress", "x-compress"]
        where FieldName.equals(coding, known) {
            return refusal(501, "a transfer coding other than chunked")
        }
        return refusal(400, "an invalid Transfer-Encoding")
    }

    private static func hasTrailers(_ value: UnsafeRawBufferPointer) -> Bool {
        var found = false
        Bytes.forEachElement(value) { if FieldName.equals($0, "trailers") { found = true } }
        return found
    }
}

/// What `Connection` fields say (RFC 9110 section 7.6.1).
struct ConnectionOptions {
    var close = false
    var keepAlive = false
    var upgrade = false
    /// Names besides these: fields to drop.
    var namesFields = false

    /// Takes one field's value.
    mutating func take(_ value: UnsafeRawBufferPointer) {
        Bytes.forEachElement(value) { option in
            if FieldName.equals(option, "close") {
                close = true
            } else if FieldName.equals(option, "keep-alive") {
                keepAlive = true
            } else if FieldName.equals(option, "upgrade") {
                upgrade = true
            } else {
                namesFields = true
            }
        }
    }
}

/// What `Upgrade` fields offer (RFC 9110 section 7.8).
struct UpgradeOffer {
    private var offers = false
    /// HTTP/2 in a tunnel would be judged by nobody.
    private var offersH2C = false

    /// A tunnel to what is offered may be asked for.
    var isServed: Bool { offers && !offersH2C }

    /// Takes one field's value.
    mutating func take(_ value: UnsafeRawBufferPointer) {
        Bytes.forEachElement(value) { name in
            offers = true
            if FieldName.equals(name, "h2c") { offersH2C = true }
        }
    }
}

/// The authority of a target in absolute form (RFC 9112 section 3.2.2).
struct Authority {
    let bytes: UnsafeRawBufferPointer
    private let defaultPort: StaticString
    let start: Int
    /// Where the path, or the query without one, begins in the target.
    let pathStart: Int

    init?(ofTarget target: UnsafeRawBufferPointer) {
        if target.count > 7, FieldName.equals(UnsafeRawBufferPointer(rebasing: target[..<7]), "http://") {
            start = 7
            defaultPort = ":80"
        } else if target.count > 8, FieldName.equals(UnsafeRawBufferPointer(rebasing: target[..<8]), "https://") {
            start = 8
            defaultPort = ":443"
        } else {
            return nil
        }
        var end = start
        while end < target.count, target[end] != 0x2f, target[end] != 0x3f, target[end] != 0x23 { end += 1 }
        if end == start { return nil }
        bytes = UnsafeRawBufferPointer(rebasing: target[start..<end])
        pathStart = end
    }

    /// Whether `Host` says the same; a default port may be left out on either side.
    func names(_ host: UnsafeRawBufferPointer) -> Bool { FieldName.equals(shortened(bytes), shortened(host)) }

    private func shortened(_ authority: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        let count = defaultPort.utf8CodeUnitCount
        guard authority.count > count else { return authority }
        let end = authority.count - count
        guard FieldName.equals(UnsafeRawBufferPointer(rebasing: authority[end...]), defaultPort) else {
            return authority
        }
        return UnsafeRawBufferPointer(rebasing: authority[..<end])
    }
}
