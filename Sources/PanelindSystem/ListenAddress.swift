//  ListenAddress.swift
//  Where to listen, and why that did not work.
//  Read before Listener.swift.

import Glibc
import PanelindCore

/// Where to listen.
public enum ListenAddress: Hashable, Sendable, CustomStringConvertible {
    /// A host's name or address without brackets (`0.0.0.0`, `::`), and a port; port 0 takes a free one.
    case tcp(host: String, port: UInt16)
    /// A path in the file system, at most 107 bytes.
    case unix(String)
    /// A socket that was passed to us (sd_listen_fds(3)): by its name, or the first.
    case inherited(name: String?)

    /// As settings write it: `0.0.0.0:8080`, `[::]:8080`, `unix:/run/x.sock`, `systemd:http`.
    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        case .inherited(let name): name.map { "systemd:\($0)" } ?? "systemd"
        }
    }
}

/// Why a socket could not be had.
public struct ListenError: Error, Hashable, Sendable, CustomStringConvertible {
    public var address: ListenAddress
    /// What the kernel answered; nil where it was not the kernel.
    public var error: SystemError?
    /// `cannot bind 0.0.0.0:8080: address already in use (EADDRINUSE); held by pid 1234 (python3)`.
    public var description: String

    /// Makes an error with its whole sentence.
    public init(_ address: ListenAddress, _ error: SystemError?, _ description: String) {
        self.address = address
        self.error = error
        self.description = description
    }
}

/// Socket addresses of the two families with ports, and of paths.
enum SocketAddress {
    /// The longest path of a unix socket (unix(7)).
    static let pathLimit = 107

    /// Resolves a host without asking a name server where it is an address already; nil and words where it cannot.
    static func resolve(host: String, port: UInt16) -> (family: Int32, bytes: [UInt8])? {
        for flags in [AI_NUMERICHOST | AI_PASSIVE, AI_PASSIVE] {
            var hints = addrinfo()
            hints.ai_flags = flags | AI_NUMERICSERV
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            var found: UnsafeMutablePointer<addrinfo>?
            guard getaddrinfo(host, "\(port)", &hints, &found) == 0, let first = found else { continue }
            defer { freeaddrinfo(found) }
            guard let address = first.pointee.ai_addr else { continue }
            return (
                first.pointee.ai_family,
                Array(
                    UnsafeRawBufferPointer(
                        start: address, count: Int(first.pointee.ai_addrlen)))
            )
        }
        return nil
    }

    /// The address of a path; nil when it is too long or empty.
    static func unix(_ path: String) -> [UInt8]? {
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count <= pathLimit, !bytes.contains(0) else { return nil }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafeBytes(of: address) { Array($0) }
    }

    static func bind(_ descriptor: Int32, _ address: [UInt8]) -> Bool {
        withSocketAddress(address) { Glibc.bind(descriptor, $0, $1) == 0 }
    }

    static func connect(_ descriptor: Int32, _ address: [UInt8]) -> Bool {
        withSocketAddress(address) { Glibc.connect(descriptor, $0, $1) == 0 }
    }

    private static func withSocketAddress(
        _ bytes: [UInt8], _ body: (UnsafePointer<sockaddr>, socklen_t) -> Bool
    ) -> Bool {
        bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return false }
            return body(base.assumingMemoryBound(to: sockaddr.self), socklen_t(buffer.count))
        }
    }

    /// Where a socket is bound (getsockname(2)); nil for families that we do not serve.
    static func local(_ descriptor: Int32) -> ListenAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard result == 0 else { return nil }
        return withUnsafeBytes(of: storage) { bytes in
            let port = UInt16(bytes[2]) << 8 | UInt16(bytes[3])
            switch Int32(storage.ss_family) {
            case AF_INET: return .tcp(host: text(AF_INET, Array(bytes[4..<8])), port: port)
            case AF_INET6: return .tcp(host: text(AF_INET6, Array(bytes[8..<24])), port: port)
            case AF_UNIX:
                let path = bytes[2..<max(2, min(Int(length), bytes.count))].prefix { $0 != 0 }
                return .unix(String(decoding: path, as: UTF8.self))
            default: return nil
            }
        }
    }

    private static func text(_ family: Int32, _ address: [UInt8]) -> String {
        let buffer = [CChar](unsafeUninitializedCapacity: 64) { buffer, count in
            count = inet_ntop(family, address, buffer.baseAddress, 64) == nil ? 0 : 64
        }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Who listens on a port already.
enum PortHolder {
    /// `; held by pid 1234 (python3)`, or nothing where it cannot be seen; best effort, for messages only.
    static func words(port: UInt16) -> String {
        var inodes: Set<String> = []
        for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
            for line in (readText(file, limit: 4 << 20) ?? "").split(separator: "\n").dropFirst() {
                let fields = line.split(separator: " ", maxSplits: 10)
                // local_address is hexadecimal; state 0A is LISTEN (proc(5)).
                guard fields.count > 9, fields[3] == "0A", let colon = fields[1].lastIndex(of: ":"),
                    UInt16(fields[1][fields[1].index(after: colon)...], radix: 16) == port
                else { continue }
                inodes.insert("socket:[\(fields[9])]")
            }
        }
        guard !inodes.isEmpty else { return "" }
        for pid in ProcessTable.pids() {
            guard let directory = opendir("/proc/\(pid)/fd") else { continue }
            defer { closedir(directory) }
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                var target = [CChar](repeating: 0, count: 64)
                let length = readlink("/proc/\(pid)/fd/\(name)", &target, 63)
                guard length > 0 else { continue }
                let link = String(decoding: target.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
                if inodes.contains(link) {
                    return "; held by pid \(pid) (\(ProcessTable.name(of: pid) ?? "?"))"
                }
            }
        }
        return ""
    }
}
