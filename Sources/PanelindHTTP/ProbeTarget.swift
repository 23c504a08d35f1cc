//  ProbeTarget.swift
//  Where a probe asks and how: an address that needs no look-up, and the request's bytes.
//  Names are resolved when settings load, never on the loop (DESIGN section 3). Read before Prober.swift.

import NIOCore

/// A probe's address and question.
public struct ProbeTarget: Sendable {
    /// What is asked.
    public enum Question: Hashable, Sendable {
        /// GET of this path with this Host; 200...399 passes, below 500 when told so.
        case get(path: String, host: String, passesBelow500: Bool)
        /// Only that the connection is accepted.
        case connect
    }

    /// Why a text is not a target.
    public struct Invalid: Error, Hashable, CustomStringConvertible, Sendable {
        public let description: String
    }

    /// Tried in order until one accepts.
    public var addresses: [SocketAddress]
    public var question: Question

    /// Makes a target from addresses that are known already.
    public init(addresses: [SocketAddress], question: Question) {
        self.addresses = addresses
        self.question = question
    }

    /// GET of `path` at a numeric address or `localhost`.
    ///
    /// - Errors: `Invalid` where `host` is a name, or the path cannot be a target.
    public static func http(
        host: String, port: Int, path: String, passesBelow500: Bool = false
    ) throws(Invalid) -> ProbeTarget {
        let name = host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]" : host
        return ProbeTarget(
            addresses: try numeric(host, port),
            question: try get(path, host: port == 80 ? name : "\(name):\(port)", passesBelow500))
    }

    /// GET of `path` at a unix socket, with `Host: localhost`.
    ///
    /// - Errors: `Invalid` where the socket's path is longer than 107 bytes.
    public static func http(
        unix socket: String, path: String, passesBelow500: Bool = false
    ) throws(Invalid) -> ProbeTarget {
        ProbeTarget(
            addresses: try unixAddress(socket), question: try get(path, host: "localhost", passesBelow500))
    }

    /// A connection to a numeric address or `localhost`.
    public static func tcp(host: String, port: Int) throws(Invalid) -> ProbeTarget {
        ProbeTarget(addresses: try numeric(host, port), question: .connect)
    }

    /// A connection to a unix socket.
    public static func unix(_ socket: String) throws(Invalid) -> ProbeTarget {
        ProbeTarget(addresses: try unixAddress(socket), question: .connect)
    }

    /// The request as it goes over the wire; empty for a connection only.
    package func request(version: String) -> ByteBuffer {
        switch question {
        case .connect: ByteBuffer()
        case .get(let path, let host, _):
            ByteBuffer(
                string: "GET \(path) HTTP/1.1\r\nHost: \(host)\r\nUser-Agent: panelind-probe/\(version)\r\n"
                    + "Accept: */*\r\nConnection: close\r\n\r\n")
        }
    }

    /// Whether a status passes; a redirect does, and is not followed.
    func passes(_ status: Int) -> Bool {
        switch question {
        case .connect: true
        case .get(_, _, let passesBelow500): status >= 200 && status < (passesBelow500 ? 500 : 400)
        }
    }

    private static func get(_ path: String, host: String, _ passesBelow500: Bool) throws(Invalid) -> Question {
        guard path.utf8.first == UInt8(ascii: "/"), path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw Invalid(
                description: "cannot ask for \(AnswerText.quoted(path)): a path starts with / and is percent-encoded")
        }
        return .get(path: path, host: host, passesBelow500: passesBelow500)
    }

    private static func numeric(_ host: String, _ port: Int) throws(Invalid) -> [SocketAddress] {
        guard (1...65535).contains(port) else {
            throw Invalid(description: "cannot ask port \(port): ports are 1 to 65535")
        }
        let hosts = host == "localhost" ? ["127.0.0.1", "::1"] : [host]
        var addresses: [SocketAddress] = []
        // For C a NUL would end the address, and the rest would stand in the request.
        for host in hosts where !host.utf8.contains(0) {
            if let address = try? SocketAddress(ipAddress: host, port: port) { addresses.append(address) }
        }
        guard !addresses.isEmpty else {
            throw Invalid(
                description: "cannot ask \(AnswerText.quoted(host)): not a numeric address; resolve the name first")
        }
        return addresses
    }

    private static func unixAddress(_ path: String) throws(Invalid) -> [SocketAddress] {
        guard !path.isEmpty, let address = try? SocketAddress(unixDomainSocketPath: path) else {
            throw Invalid(
                description: "cannot ask the unix socket \(AnswerText.quoted(path)): 1 to 107 bytes fit (unix(7))")
        }
        return [address]
    }
}

/// The parts of a URL that a probe understands: `http://HOST[:PORT][/PATH]` or `unix:SOCKET:/PATH`.
public struct ProbeURL: Hashable, Sendable {
    /// Where.
    public enum Place: Hashable, Sendable {
        case tcp(host: String, port: Int)
        case unix(String)
    }

    public var place: Place
    /// With the query, without the fragment; at least `/`.
    public var path: String

    /// Takes a URL apart.
    ///
    /// - Errors: `ProbeTarget.Invalid` that names the text and what would be right.
    public init(_ text: String) throws(ProbeTarget.Invalid) {
        if text.hasPrefix("unix:") {
            let rest = text.dropFirst(5)
            // The path begins at the last `:/`: a socket's own path may hold colons.
            guard let mark = Self.lastMark(rest), mark != rest.startIndex else { throw Self.invalid(text) }
            place = .unix(String(rest[..<mark]))
            path = String(rest[rest.index(after: mark)...])
            return
        }
        guard text.utf8.count > 7, Framing.equals(text.utf8.prefix(7), "http://") else { throw Self.invalid(text) }
        let rest = text.dropFirst(7).prefix { $0 != "#" }
        let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        let authority = rest[..<end]
        let tail = String(rest[end...])
        path = tail.hasPrefix("/") ? tail : "/" + tail
        var host = authority
        var port: Int? = 80
        if authority.hasPrefix("[") {
            guard let close = authority.firstIndex(of: "]") else { throw Self.invalid(text) }
            host = authority[authority.index(after: authority.startIndex)..<close]
            let after = authority[authority.index(after: close)...]
            if !after.isEmpty { port = after.hasPrefix(":") ? Self.port(after.dropFirst()) : nil }
        } else if let colon = authority.firstIndex(of: ":") {
            host = authority[..<colon]
            port = Self.port(authority[authority.index(after: colon)...])
        }
        guard let port, !host.isEmpty, !authority.contains("@") else { throw Self.invalid(text) }
        place = .tcp(host: String(host), port: port)
    }

    private static func lastMark(_ text: Substring) -> Substring.Index? {
        var found: Substring.Index?
        for index in text.indices where text[index] == ":" && text[index...].dropFirst().first == "/" { found = index }
        return found
    }

    private static func port(_ text: Substring) -> Int? {
        guard text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let port = Int(text) else { return nil }
        return (1...65535).contains(port) ? port : nil
    }

    private static func invalid(_ text: String) -> ProbeTarget.Invalid {
        ProbeTarget.Invalid(
            description: "cannot probe \(AnswerText.quoted(text)): write http://HOST:PORT/PATH or unix:SOCKET:/PATH")
    }
}
