//  SystemError.swift
//  An errno with its name and plain words, as every message of panelind writes it.
//  Read first in this module.

import CPanelindSystem
import Glibc

/// What the kernel answered: an errno with its name and words.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The number (errno(3)).
    public var number: Int32

    /// Makes the error with this number; a negative one, as the C shim returns it, counts as positive.
    public init(_ number: Int32) { self.number = number < 0 ? -number : number }

    /// The error of the last failed call in this thread.
    public static var last: SystemError { SystemError(errno) }

    private static let known: [Int32: (name: String, words: String)] = [
        EPERM: ("EPERM", "not permitted"),
        ENOENT: ("ENOENT", "no such file"),
        ESRCH: ("ESRCH", "no such process"),
        EINTR: ("EINTR", "interrupted"),
        EIO: ("EIO", "input/output error"),
        ENXIO: ("ENXIO", "no such device or address"),
        E2BIG: ("E2BIG", "arguments and environment are too long"),
        ENOEXEC: ("ENOEXEC", "not a program: no valid header"),
        EBADF: ("EBADF", "bad descriptor"),
        ECHILD: ("ECHILD", "no child processes"),
        EAGAIN: ("EAGAIN", "no resources now, or a limit is reached"),
        ENOMEM: ("ENOMEM", "out of memory"),
        EACCES: ("EACCES", "permission denied"),
        EBUSY: ("EBUSY", "busy"),
        EEXIST: ("EEXIST", "exists already"),
        ENODEV: ("ENODEV", "no such device"),
        ENOTDIR: ("ENOTDIR", "not a directory"),
        EISDIR: ("EISDIR", "is a directory"),
        EINVAL: ("EINVAL", "invalid value"),
        ENFILE: ("ENFILE", "too many open files in the system"),
        EMFILE: ("EMFILE", "too many open files"),
        ETXTBSY: ("ETXTBSY", "the file is being written"),
        ENOSPC: ("ENOSPC", "no space left"),
        EROFS: ("EROFS", "read-only file system"),
        EPIPE: ("EPIPE", "broken pipe"),
        ENAMETOOLONG: ("ENAMETOOLONG", "name too long"),
        ENOSYS: ("ENOSYS", "not supported by this kernel"),
        ELOOP: ("ELOOP", "too many symbolic links"),
        ENOTSOCK: ("ENOTSOCK", "not a socket"),
        EPROTOTYPE: ("EPROTOTYPE", "wrong type of socket"),
        EAFNOSUPPORT: ("EAFNOSUPPORT", "address family not supported"),
        EADDRINUSE: ("EADDRINUSE", "address already in use"),
        EADDRNOTAVAIL: ("EADDRNOTAVAIL", "address not available on this machine"),
        ECONNREFUSED: ("ECONNREFUSED", "connection refused"),
        ETIMEDOUT: ("ETIMEDOUT", "timed out"),
        EOPNOTSUPP: ("EOPNOTSUPP", "not supported"),
    ]

    /// The symbol, `ENOENT`, or `errno 255`.
    public var name: String { Self.known[number]?.name ?? "errno \(number)" }

    /// What it means in a few words of lower case.
    public var words: String {
        if let known = Self.known[number] { return known.words }
        guard let text = strerror(number) else { return "error" }
        return String(cString: text).lowercased()
    }

    /// `no such file (ENOENT)`.
    public var description: String { "\(words) (\(name))" }
}

/// The bytes of a file, at most `limit`, or what the kernel answered.
func readFile(_ path: String, limit: Int) -> Result<[UInt8], SystemError> {
    var error: Int = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
        let result = panelind_file_read(path, buffer.baseAddress, limit)
        count = max(0, result)
        error = min(0, result)
    }
    return error < 0 ? .failure(SystemError(Int32(error))) : .success(bytes)
}

/// The text of a small file such as those of /proc, invalid bytes replaced; nil when it cannot be read.
func readText(_ path: String, limit: Int = 65536) -> String? {
    guard case .success(let bytes) = readFile(path, limit: limit) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
}
