//  MetadataServer.swift
//  The project's name from the metadata server, for the names of traces (CONTRACT section 2, log.project).
//  Asked once, on a thread of its own, behind the worker's start; without an answer there is no trace field.
//  Read AccessLog.swift first.

import Glibc
import NIOCore
import PanelindCore
import PanelindOutput
import PanelindSettings

extension Daemon {
    /// Asks where access records will want the project and nobody has said it.
    func learnProject(_ settings: Settings) {
        guard settings.platform == .cloudrun, settings.serve.mode == .front, settings.log.project == nil else { return }
        // As Google's own libraries let it be placed, for tests and emulators.
        let place = performer.environment["GCE_METADATA_HOST"].flatMap { $0.isEmpty ? nil : $0 }
        let bound = NIOLoopBound(performer, eventLoop: performer.loop)
        let loop = performer.loop
        _ = startThread {
            guard let project = MetadataServer.project(at: place ?? "metadata.google.internal") else { return }
            loop.execute { bound.value.project = project }
        }
    }
}

/// One question to the metadata server; blocks, at most a few seconds.
enum MetadataServer {
    /// `/computeMetadata/v1/project/project-id`, or nil where nobody answers it.
    static func project(at place: String) -> String? {
        let parts = place.split(separator: ":", maxSplits: 1)
        guard let host = parts.first else { return nil }
        guard let descriptor = connect(String(host), parts.count > 1 ? String(parts[1]) : "80") else { return nil }
        defer { close(descriptor) }
        let request =
            "GET /computeMetadata/v1/project/project-id HTTP/1.1\r\nHost: \(place)\r\nMetadata-Flavor: Google\r\n"
            + "Connection: close\r\n\r\n"
        guard send(descriptor, request, request.utf8.count, Int32(MSG_NOSIGNAL)) == request.utf8.count else {
            return nil
        }
        var answer: [UInt8] = []
        while answer.count < 8192 {
            let piece = [UInt8](unsafeUninitializedCapacity: 2048) { room, count in
                count = max(0, recv(descriptor, room.baseAddress, 2048, 0))
            }
            if piece.isEmpty { break }
            answer += piece
        }
        return project(in: String(decoding: answer, as: UTF8.self))
    }

    /// The body of a 200 that has the server's own mark and looks like a project's name.
    static func project(in answer: String) -> String? {
        let lines = answer.split(separator: "\r\n", omittingEmptySubsequences: false)
        guard let first = lines.first, first.hasPrefix("HTTP/1."),
            first.split(separator: " ").dropFirst().first == "200",
            let end = lines.firstIndex(of: ""), end + 1 < lines.count,
            lines[..<end].contains(where: { $0.lowercased() == "metadata-flavor: google" })
        else { return nil }
        let name = lines[end + 1].prefix { $0 != "\n" }
        // 6 to 30 characters, or a domain before a colon.
        let isName =
            !name.isEmpty && name.utf8.count <= 100
            && name.utf8.allSatisfy { byte in
                switch byte {
                case 0x61...0x7A, 0x30...0x39, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: ":"): true
                default: false
                }
            }
        return isName ? String(name) : nil
    }

    private static func connect(_ host: String, _ port: String) -> Int32? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, port, &hints, &list) == 0, let list else { return nil }
        defer { freeaddrinfo(list) }
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(list.pointee.ai_family, kind, 0)
        guard descriptor >= 0 else { return nil }
        // It answers within milliseconds or is not there. The time holds for connect(2) too (socket(7)).
        var patience = timeval(tv_sec: 2, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, size)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, size)
        if Glibc.connect(descriptor, list.pointee.ai_addr, list.pointee.ai_addrlen) == 0 { return descriptor }
        close(descriptor)
        return nil
    }
}
