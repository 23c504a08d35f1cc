//  Framing.swift
//  Whether a request head that NIO's decoder let through may be served, and how its body is framed (CONTRACT 5).
//  Pure: a head in, a judgement out; ambiguous framing is refused, never repaired. Read HTTPLimits.swift first.

import NIOHTTP1

/// Why a request is not served: an answer that is followed by the end of the connection.
public struct HeadRefusal: Error, Hashable, Sendable {
    /// The status code, 400...505.
    public var status: Int
    /// One line for the client; never contains its own bytes.
    public var detail: StaticText

    /// Makes a refusal.
    public init(_ status: Int, _ detail: StaticText) {
        self.status = status
        self.detail = detail
    }
}

/// A text known when the program was written: it cannot carry a client's bytes into an answer or a log.
public struct StaticText: Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    /// The text.
    public let description: String
    /// Takes a literal.
    public init(stringLiteral value: StaticString) { description = "\(value)" }
}

/// How a request is delimited and what it wants of the connection (RFC 9112 section 6).
public struct RequestFraming: Hashable, Sendable {
    /// Where the body ends.
    public enum Body: Hashable, Sendable {
        case none
        /// `Content-Length`, more than 0.
        case length(Int)
        case chunked
    }

    public var body: Body = .none
    /// The connection may be used again after the answer.
    public var keepsAlive: Bool = true
    /// HTTP/1.0: a kept connection must be announced, and chunked is not understood.
    public var isHTTP10: Bool = false
    /// The client waits for `100 Continue` before it sends the body.
    public var expectsContinue: Bool = false
    /// `Connection: upgrade` with an `Upgrade` field: NIO's decoder stops after this message.
    public var asksUpgrade: Bool = false
}

/// The judge of request heads.
public enum Framing {
    /// Judges a head.
    ///
    /// - Errors: `HeadRefusal` with 400, 405, 414, 417 or 501.
    /// - Source: RFC 9112 sections 2.2, 3.2, 6.1 to 6.3, 9.3; RFC 9110 section 10.1.1.
    public static func judge(_ head: HTTPRequestHead, targetBytes: Int) throws(HeadRefusal) -> RequestFraming {
        var framing = RequestFraming()
        framing.isHTTP10 = head.version.minor == 0
        try judgeTarget(head, limit: targetBytes)
        var fields = Fields()
        for (name, value) in head.headers {
            try fields.take(name, value)
        }
        if fields.hosts > 1 { throw HeadRefusal(400, "more than one Host") }
        if fields.hosts == 0 && !framing.isHTTP10 { throw HeadRefusal(400, "no Host") }
        if let coding = fields.transferEncoding {
            if fields.contentLength != nil { throw HeadRefusal(400, "Content-Length with Transfer-Encoding") }
            if framing.isHTTP10 { throw HeadRefusal(400, "Transfer-Encoding in HTTP/1.0") }
            guard equals(coding, "chunked") else { throw HeadRefusal(501, "a transfer coding other than chunked") }
            framing.body = .chunked
        } else if let text = fields.contentLength {
            guard let length = digits(text) else { throw HeadRefusal(400, "an invalid Content-Length") }
            if length > 0 { framing.body = .length(length) }
        }
        if framing.isHTTP10 {
            framing.keepsAlive = fields.keepAlive && !fields.close
        } else {
            framing.keepsAlive = !fields.close
            if let expectation = fields.expect {
                guard equals(expectation, "100-continue") else { throw HeadRefusal(417, "an unknown expectation") }
                framing.expectsContinue = framing.body != .none
            }
        }
        framing.asksUpgrade = fields.connectionUpgrade && fields.hasUpgrade
        return framing
    }

    /// Method and target: the forms of RFC 9112 section 3.2 that a server has resources for.
    private static func judgeTarget(_ head: HTTPRequestHead, limit: Int) throws(HeadRefusal) {
        switch head.method {
        case .CONNECT, .TRACE: throw HeadRefusal(405, "CONNECT and TRACE are not served")
        default: break
        }
        let target = head.uri.utf8
        guard let first = target.first else { throw HeadRefusal(400, "an empty target") }
        if target.count > limit { throw HeadRefusal(414, "the target is too long") }
        // NIO decodes the target as UTF-8 and may have put U+FFFD for a bad byte: both are beyond ASCII, both refused.
        for byte in target where byte <= 0x20 || byte >= 0x7f {
            throw HeadRefusal(400, "a byte that must be percent-encoded in the target")
        }
        if first == UInt8(ascii: "/") { return }
        if head.uri == "*" && head.method == .OPTIONS { return }
        if pathStart(of: head.uri) != nil { return }
        throw HeadRefusal(400, "a target that is neither a path nor an http URL")
    }

    /// Where the path starts in an absolute-form target (`http://host/path`), nil for other forms.
    static func pathStart(of target: String) -> String.Index? {
        let utf8 = target.utf8
        let prefix = utf8.prefix(8)
        let skip: Int
        if equals(prefix.prefix(7), "http://") {
            skip = 7
        } else if equals(prefix, "https://") {
            skip = 8
        } else {
            return nil
        }
        let authority = utf8.index(utf8.startIndex, offsetBy: skip)
        let rest = utf8[authority...]
        let end = rest.firstIndex { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "?") } ?? utf8.endIndex
        return end == authority ? nil : end
    }

    /// What the judged fields said.
    private struct Fields {
        var hosts = 0
        var contentLength: String?
        var transferEncoding: String?
        var expect: String?
        var close = false
        var keepAlive = false
        var connectionUpgrade = false
        var hasUpgrade = false

        /// Takes one field; only lengths that matter are compared at all.
        mutating func take(_ name: String, _ value: String) throws(HeadRefusal) {
            // The decoder refuses these by itself; the judge does not rely on it.
            for byte in value.utf8 where byte < 0x20 && byte != 0x09 || byte == 0x7f {
                throw HeadRefusal(400, "a control character in a field")
            }
            switch name.utf8.count {
            case 4 where equals(name, "host"):
                hosts += 1
                guard isHost(trimmed(value)) else { throw HeadRefusal(400, "an invalid Host") }
            case 6 where equals(name, "expect"):
                if expect != nil { throw HeadRefusal(417, "more than one Expect") }
                expect = trimmed(value)
            case 7 where equals(name, "upgrade"):
                hasUpgrade = true
            case 10 where equals(name, "connection"):
                takeConnection(value)
            case 14 where equals(name, "content-length"):
                if contentLength != nil { throw HeadRefusal(400, "more than one Content-Length") }
                contentLength = trimmed(value)
            case 17 where equals(name, "transfer-encoding"):
                if transferEncoding != nil { throw HeadRefusal(400, "more than one Transfer-Encoding") }
                transferEncoding = trimmed(value)
            default: break
            }
        }

        private mutating func takeConnection(_ value: String) {
            for token in value.utf8.split(separator: UInt8(ascii: ",")) {
                let token = trimmed(token)
                if equals(token, "close") { close = true }
                if equals(token, "keep-alive") { keepAlive = true }
                if equals(token, "upgrade") { connectionUpgrade = true }
            }
        }
    }

    /// A host and port, or nothing (RFC 9112 section 3.2): no list, no path, no user.
    private static func isHost(_ value: String) -> Bool {
        for byte in value.utf8 {
            switch byte {
            case UInt8(ascii: ","), UInt8(ascii: "/"), UInt8(ascii: "@"), UInt8(ascii: "?"), UInt8(ascii: "#"),
                UInt8(ascii: "\\"), 0x00...0x20, 0x7f...0xff:
                return false
            default: continue
            }
        }
        return true
    }

    /// Digits only, no sign, no list; nil too where the number does not fit.
    private static func digits(_ text: String) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        return Int(text)
    }

    /// Without the optional whitespace that the decoder leaves at the end of a value.
    private static func trimmed(_ value: String) -> String {
        guard let last = value.utf8.last, last == 0x20 || last == 0x09 else { return value }
        return String(trimmed(value[...].utf8)) ?? ""
    }

    private static func trimmed(_ token: Substring.UTF8View) -> Substring.UTF8View {
        var token = token
        while let first = token.first, first == 0x20 || first == 0x09 { token = token.dropFirst() }
        while let last = token.last, last == 0x20 || last == 0x09 { token = token.dropLast() }
        return token
    }

    private static func equals(_ text: String, _ lowercase: StaticString) -> Bool { equals(text.utf8, lowercase) }

    /// ASCII equality without regard to case; `lowercase` is in lower case.
    static func equals<Bytes: Collection<UInt8>>(_ bytes: Bytes, _ lowercase: StaticString) -> Bool {
        guard bytes.count == lowercase.utf8CodeUnitCount else { return false }
        var other = lowercase.utf8Start
        for byte in bytes {
            let folded = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte
            if folded != other.pointee { return false }
            other += 1
        }
        return true
    }
}
