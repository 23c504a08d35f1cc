//  FieldName.swift
//  The field names that a proxy treats in a way of their own; every other passes untouched.
//  Found by length, then compared without regard to case. Read before HeadScanner.swift.

/// What a field's name means to the front (RFC 9110, RFC 9112; CONTRACT section 5).
enum FieldName: UInt8 {
    /// Passes untouched.
    case other
    /// Concerns one connection only and is dropped: Keep-Alive, Proxy-*, HTTP2-Settings (RFC 9110 section 7.6.1).
    case hopByHop
    case connection, upgrade, te, trailer
    case contentLength, transferEncoding
    case host, expect
    case forwardedFor, forwardedProto, forwardedHost, requestID
    case contentType, date

    /// The meaning of a name, which has at least one byte.
    static func of(_ name: UnsafeRawBufferPointer) -> FieldName {
        switch name.count {
        case 2: if equals(name, "te") { return .te }
        case 4:
            if equals(name, "host") { return .host }
            if equals(name, "date") { return .date }
        case 5: if equals(name, "proxy") { return .hopByHop }
        case 6: if equals(name, "expect") { return .expect }
        case 7:
            if equals(name, "upgrade") { return .upgrade }
            if equals(name, "trailer") { return .trailer }
        case 10:
            if equals(name, "connection") { return .connection }
            if equals(name, "keep-alive") { return .hopByHop }
        case 12:
            if equals(name, "content-type") { return .contentType }
            if equals(name, "x-request-id") { return .requestID }
        case 14:
            if equals(name, "content-length") { return .contentLength }
            if equals(name, "http2-settings") { return .hopByHop }
        case 15: if equals(name, "x-forwarded-for") { return .forwardedFor }
        case 16: if equals(name, "x-forwarded-host") { return .forwardedHost }
        case 17:
            if equals(name, "transfer-encoding") { return .transferEncoding }
            if equals(name, "x-forwarded-proto") { return .forwardedProto }
        default: break
        }
        // `Proxy` itself too: CGI-like workers would read it as HTTP_PROXY.
        if name.count > 6, equals(UnsafeRawBufferPointer(rebasing: name[..<6]), "proxy-") { return .hopByHop }
        return .other
    }

    /// A name that a trailer section must not carry: framing, routing, authentication, and what says how to handle
    /// the content (RFC 9110 section 6.5.1).
    static func isForbiddenInTrailers(_ name: UnsafeRawBufferPointer) -> Bool {
        switch of(name) {
        case .other: break
        case .date: return false
        default: return true
        }
        return forbidden.contains { equals(name, $0) }
    }

    private static let forbidden: [StaticString] = [
        "authorization", "cookie", "set-cookie", "content-encoding", "content-range", "cache-control", "max-forwards",
        "www-authenticate", "x-serverless-authorization", "age", "expires", "location", "retry-after", "vary", "range",
        "traceparent", "x-cloud-trace-context",
    ]

    /// ASCII equality without regard to case; `lowercase` is in lower case.
    @inline(__always)
    static func equals(_ bytes: UnsafeRawBufferPointer, _ lowercase: StaticString) -> Bool {
        guard bytes.count == lowercase.utf8CodeUnitCount, let base = bytes.baseAddress else { return false }
        let other = lowercase.utf8Start
        for index in 0..<bytes.count {
            let byte = base.load(fromByteOffset: index, as: UInt8.self)
            let folded = byte &- 0x41 < 26 ? byte | 0x20 : byte
            if folded != other[index] { return false }
        }
        return true
    }

    /// ASCII equality of two names without regard to case.
    static func equals(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
        guard a.count == b.count else { return false }
        for index in 0..<a.count {
            let x = a[index] &- 0x41 < 26 ? a[index] | 0x20 : a[index]
            let y = b[index] &- 0x41 < 26 ? b[index] | 0x20 : b[index]
            if x != y { return false }
        }
        return true
    }
}
