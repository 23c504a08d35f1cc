//  JournalSocket.swift
//  Entries on their way to journald, one datagram each, never waiting: sd_journal_sendv(3) does wait.
//  docs/decisions/0007-journal-socket.md says why it is called for large entries only. Read after JournalEncoding.swift.

import Glibc

/// The journal's socket. Output thread only.
final class JournalSocket {
    /// What became of an entry.
    enum Sent {
        case taken
        /// The journal is behind: poll `descriptor` for POLLOUT.
        case full
        /// Nobody listens: try again later.
        case gone
        /// It cannot be passed at all.
        case refused
    }

    private let path: String
    private let sendLarge: OutputConfiguration.LargeEntrySender?
    /// Connected, non-blocking; -1 while nobody listens.
    private(set) var descriptor: Int32 = -1
    private var scratch: MutableBytes
    private var capacity = 128 << 10

    init(path: String, sendLarge: OutputConfiguration.LargeEntrySender?) {
        self.path = path
        self.sendLarge = sendLarge
        scratch = .allocate(capacity: capacity)
    }

    deinit {
        scratch.deallocate()
        if descriptor >= 0 { close(descriptor) }
    }

    /// Sends one entry, given as the buffer keeps it.
    func send(_ escaped: Bytes, _ count: Int) -> Sent {
        if count > capacity {
            scratch.deallocate()
            capacity = count
            scratch = .allocate(capacity: capacity)
        }
        let length = journalUnescape(escaped, count, to: scratch)
        var wasConnected = descriptor >= 0
        while true {
            if descriptor < 0, connect() != 0 { return .gone }
            if Glibc.send(descriptor, scratch, length, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) >= 0 { return .taken }
            switch errno {
            case EINTR: continue
            case EAGAIN: return .full
            case EMSGSIZE, ENOBUFS: return large(length)
            default:
                // The socket was made anew, or is gone.
                close(descriptor)
                descriptor = -1
                guard wasConnected else { return .gone }
                wasConnected = false
            }
        }
    }

    /// 0, or the errno for which nobody can be reached.
    func connect() -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return ENAMETOOLONG }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let type = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let fresh = socket(AF_UNIX, type, 0)
        if fresh < 0 { return errno }
        // For lines of any usual limit; the kernel gives what this user may have (socket(7)).
        var size: Int32 = 512 << 10
        setsockopt(fresh, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        let result = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(fresh, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if result != 0 {
            let error = errno
            close(fresh)
            return error
        }
        descriptor = fresh
        return 0
    }

    /// An entry that no datagram holds, in `scratch`: as fields `NAME=value`, moved together where they stand.
    private func large(_ length: Int) -> Sent {
        guard let sendLarge else { return .refused }
        var fields: [iovec] = []
        var at = 0
        while at < length {
            var end = at
            while end < length, scratch[end] != 0x3D, scratch[end] != 0x0A { end += 1 }
            guard end < length else { break }
            var begin = at
            let name = end - at
            if scratch[end] == 0x3D {
                while end < length, scratch[end] != 0x0A { end += 1 }
            } else {
                var size = 0
                for i in (0..<8).reversed() { size = size << 8 | Int(scratch[end + 1 + i]) }
                // The length between name and value makes room for the name to move up.
                begin = at + 8
                memmove(scratch + begin, scratch + at, name)
                scratch[begin + name] = 0x3D
                end += 9 + size
            }
            fields.append(iovec(iov_base: scratch + begin, iov_len: end - begin))
            at = end + 1
        }
        return fields.withUnsafeBufferPointer { sendLarge($0) } == 0 ? .taken : .refused
    }
}
