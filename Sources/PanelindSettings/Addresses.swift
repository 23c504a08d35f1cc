//  Addresses.swift
//  How addresses are written: `HOST:PORT`, `[::]:PORT`, `unix:PATH`, `systemd:NAME`, CIDR blocks.
//  Read after Quantities.swift.

import Glibc

/// Where something listens, or is reached.
public enum ListenAddress: Hashable, Sendable, CustomStringConvertible {
    /// A numeric address or a name, without brackets, and a port 1...65535.
    case tcp(host: String, port: Int)
    /// A unix socket; at most 107 bytes of path (unix(7)).
    case unix(String)
    /// A socket inherited by LISTEN_FDS: the one of this name, or the first (sd_listen_fds(3)).
    case systemd(String?)

    /// As settings write it.
    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        case .systemd(let name): name.map { "systemd:\($0)" } ?? "systemd"
        }
    }

    /// The port of a TCP address.
    public var port: Int? {
        if case .tcp(_, let port) = self { return port }
        return nil
    }

    /// Bytes of a path that fit sun_path with its NUL (unix(7)).
    public static let longestUnixPath = 107
}

/// Reads an address of the kinds that are allowed.
func parseAddress(_ text: String, systemd: Bool, unix: Bool = true) throws(BadValue) -> ListenAddress {
    let hint = "write HOST:PORT, [::]:PORT" + (unix ? ", unix:PATH" : "") + (systemd ? " or systemd" : "")
    if text == "systemd" || text.hasPrefix("systemd:") {
        guard systemd else { throw BadValue("only serve.listen takes an inherited socket; \(hint)") }
        if text == "systemd" { return .systemd(nil) }
        let name = text.dropFirst("systemd:".count)
        guard !name.isEmpty, !name.contains(":") else { throw BadValue("not the name of a socket; write systemd:NAME") }
        return .systemd(String(name))
    }
    if text.hasPrefix("unix:") {
        guard unix else { throw BadValue("not a TCP address; \(hint)") }
        let path = String(text.dropFirst("unix:".count))
        guard !path.isEmpty else { throw BadValue("no path; write unix:PATH") }
        let limit = ListenAddress.longestUnixPath
        guard path.utf8.count <= limit else {
            throw BadValue("a path of \(path.utf8.count) bytes does not fit a socket address; at most \(limit)")
        }
        return .unix(path)
    }
    guard let colon = text.lastIndex(of: ":") else { throw BadValue("no port; \(hint)") }
    var host = text[..<colon]
    let port = try parsePort(text[text.index(after: colon)...])
    if host.hasPrefix("["), host.hasSuffix("]"), host.count > 2 {
        host = host.dropFirst().dropLast()
        guard numericAddress(String(host))?.count == 16 else {
            throw BadValue("not an IPv6 address in brackets; \(hint)")
        }
    } else if host.isEmpty {
        throw BadValue("no host; write 0.0.0.0:\(port) or 127.0.0.1:\(port)")
    } else if host.contains(":") {
        throw BadValue("an IPv6 address without brackets; write [\(host)]:\(port)")
    } else if !isHostName(host) {
        throw BadValue("not a host; \(hint)")
    }
    return .tcp(host: String(host), port: port)
}

/// Reads a port 1...65535.
func parsePort(_ text: some StringProtocol) throws(BadValue) -> Int {
    guard !text.isEmpty else { throw BadValue("no port; write a port from 1 to 65535") }
    guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = Int(text), (1...65535).contains(port) else {
        throw BadValue("\(shortened(String(text))) is not a port; write one from 1 to 65535")
    }
    return port
}

/// A dotted address or a name (RFC 1123 section 2.1). All digits and dots must be an address.
private func isHostName(_ host: Substring) -> Bool {
    if host.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == 0x2E }) {
        return numericAddress(String(host))?.count == 4
    }
    guard host.utf8.count <= 253 else { return false }
    return host.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
        !label.isEmpty && label.utf8.count <= 63 && !label.hasPrefix("-")
            && label.utf8.allSatisfy { byte in
                (0x61...0x7A).contains(byte | 0x20) || (0x30...0x39).contains(byte) || byte == 0x2D || byte == 0x5F
            }
    }
}

/// The 4 or 16 bytes of a numeric address (inet_pton(3)); nil for a name.
public func numericAddress(_ text: String) -> [UInt8]? {
    // For C the text would end there.
    if text.utf8.contains(0) { return nil }
    var four = in_addr()
    if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: four) { Array($0) } }
    var six = in6_addr()
    if inet_pton(AF_INET6, text, &six) == 1 { return withUnsafeBytes(of: six) { Array($0) } }
    return nil
}

/// Whose forwarding headers are kept (`serve.trustedProxies`).
public enum TrustedProxy: Hashable, Sendable, CustomStringConvertible {
    /// 127.0.0.0/8 and ::1.
    case loopback
    /// Peers on a unix socket.
    case unix
    /// Everybody.
    case all
    /// A block of addresses.
    case block(AddressBlock)

    public var description: String {
        switch self {
        case .loopback: "loopback"
        case .unix: "unix"
        case .all: "all"
        case .block(let block): block.text
        }
    }

    static func parse(_ text: String) throws(BadValue) -> TrustedProxy {
        switch text {
        case "loopback": return .loopback
        case "unix": return .unix
        case "all": return .all
        default:
            guard let block = AddressBlock(text) else {
                throw BadValue("\(shortened(text)) is no address or block; write loopback, unix, all or 10.0.0.0/8")
            }
            return .block(block)
        }
    }
}

/// An address, or those that share its first bits (CIDR, RFC 4632).
public struct AddressBlock: Hashable, Sendable {
    /// 4 or 16 bytes, in network order.
    public var bytes: [UInt8]
    /// How many leading bits count.
    public var prefixLength: Int
    /// As it was written.
    public var text: String

    /// Reads `10.0.0.0/8`, `fd00::/8` or one address.
    public init?(_ text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let bytes = numericAddress(String(parts[0])) else { return nil }
        self.bytes = bytes
        self.text = text
        prefixLength = bytes.count * 8
        if parts.count == 2 {
            guard let length = Int(parts[1]), (0...prefixLength).contains(length) else { return nil }
            prefixLength = length
        }
    }

    /// Whether the 4 or 16 bytes of an address lie in this block; an IPv4-mapped one counts as IPv4.
    public func contains(_ address: [UInt8]) -> Bool {
        var address = address
        if address.count == 16, bytes.count == 4, address.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF] {
            address = Array(address.suffix(4))
        }
        guard address.count == bytes.count else { return false }
        for bit in 0..<prefixLength {
            let mask = UInt8(0x80) >> (bit % 8)
            if (address[bit / 8] ^ bytes[bit / 8]) & mask != 0 { return false }
        }
        return true
    }
}
