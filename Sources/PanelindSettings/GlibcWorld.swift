//  GlibcWorld.swift
//  The true answers to the questions of Surroundings.swift, by Glibc.
//  May block on a slow file system; called when settings load and when a start is prepared.

import Glibc

extension World {
    /// This machine.
    public static var real: World {
        World(
            read: { readFile($0, limit: $1) },
            kind: fileKind,
            isExecutable: { access($0, X_OK) == 0 },
            head: { path in
                let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                guard fd >= 0 else { return nil }
                defer { close(fd) }
                var buffer = [UInt8](repeating: 0, count: 256)
                let count = Glibc.read(fd, &buffer, buffer.count)
                return count < 0 ? nil : Array(buffer.prefix(count))
            },
            user: userEntry,
            group: groupNumber,
            address: hostAddress,
            bindProblem: bindFailure,
            userID: geteuid(),
            changesUsers: mayChangeUsers)
    }
}

/// CapEff of /proc/self/status (proc(5)); root without /proc is believed to have all.
@Sendable private func mayChangeUsers() -> Bool {
    guard case .success(let bytes) = readFile("/proc/self/status", limit: 16 << 10),
        let line = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first(where: {
            $0.hasPrefix("CapEff:")
        }),
        let word = line.split(whereSeparator: \.isWhitespace).last, let capabilities = UInt64(word, radix: 16)
    else { return geteuid() == 0 }
    let wanted: UInt64 = 1 << 6 | 1 << 7
    return capabilities & wanted == wanted
}

extension Surroundings {
    /// What surrounds this process now.
    public static var current: Surroundings {
        var environment: [String: String] = [:]
        var pointer = environ
        while let entry = pointer.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                let name = String(text[..<equals])
                // getenv(3) answers with the first of two.
                if environment[name] == nil { environment[name] = String(text[text.index(after: equals)...]) }
            }
            pointer += 1
        }
        var directory = "/"
        if let path = getcwd(nil, 0) {
            directory = String(cString: path)
            free(path)
        }
        var surroundings = Surroundings(environment: environment, workingDirectory: directory)
        surroundings.stdoutIsTerminal = isatty(STDOUT_FILENO) == 1
        var status = stat()
        if fstat(STDOUT_FILENO, &status) == 0 {
            surroundings.stdoutIsJournal = environment["JOURNAL_STREAM"] == "\(status.st_dev):\(status.st_ino)"
        }
        surroundings.inheritedSockets = socketNames(environment, processID: getpid())
        return surroundings
    }
}

/// Names of the sockets that LISTEN_FDS hands to this process (sd_listen_fds_with_names(3)).
func socketNames(_ environment: [String: String], processID: Int32) -> [String] {
    guard let pid = environment["LISTEN_PID"].flatMap({ Int32($0) }), pid == processID,
        let count = environment["LISTEN_FDS"].flatMap({ Int($0) }), (1...1024).contains(count)
    else { return [] }
    let names = (environment["LISTEN_FDNAMES"] ?? "").split(separator: ":", omittingEmptySubsequences: false)
    return (0..<count).map { index in
        names.indices.contains(index) && !names[index].isEmpty ? String(names[index]) : "unknown"
    }
}

private func reason(_ code: Int32 = errno) -> String {
    // Per thread since glibc 2.32 (strerror(3)).
    guard let text = strerror(code) else { return "error \(code)" }
    return String(cString: text)
}

private func readFile(_ path: String, limit: Int) -> Result<[UInt8], ReadError> {
    // Not blocking: a named pipe under this name must not hang the start.
    let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard fd >= 0 else { return .failure(errno == ENOENT ? .missing : .failed(reason())) }
    defer { close(fd) }
    var status = stat()
    guard fstat(fd, &status) == 0 else { return .failure(.failed(reason())) }
    if status.st_mode & S_IFMT == S_IFDIR { return .failure(.directory) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 16384)
    while true {
        let count = read(fd, &buffer, buffer.count)
        if count < 0 {
            if errno == EINTR { continue }
            return .failure(.failed(reason()))
        }
        if count == 0 { return .success(bytes) }
        bytes += buffer.prefix(count)
        if bytes.count > limit { return .failure(.tooLarge) }
    }
}

private func fileKind(_ path: String) -> FileKind {
    var status = stat()
    guard stat(path, &status) == 0 else {
        return errno == ENOENT || errno == ENOTDIR ? .missing : .unreachable(reason())
    }
    switch status.st_mode & S_IFMT {
    case S_IFDIR: return .directory
    case S_IFREG: return .file
    default: return .other
    }
}

private func userEntry(_ name: String) -> UserEntry? {
    var entry = passwd()
    var found: UnsafeMutablePointer<passwd>?
    var buffer = [CChar](repeating: 0, count: 16384)
    var code = getpwnam_r(name, &entry, &buffer, buffer.count, &found)
    if found == nil, let uid = UInt32(name) { code = getpwuid_r(uid, &entry, &buffer, buffer.count, &found) }
    guard code == 0, found != nil, let raw = entry.pw_name else { return nil }
    let user = String(cString: raw)
    var count: Int32 = 64
    var groups = [gid_t](repeating: 0, count: Int(count))
    while getgrouplist(user, entry.pw_gid, &groups, &count) < 0 {
        guard count > groups.count, count <= 65536 else { return nil }
        groups = [gid_t](repeating: 0, count: Int(count))
    }
    return UserEntry(name: user, uid: entry.pw_uid, gid: entry.pw_gid, groups: Array(groups.prefix(Int(count))))
}

private func groupNumber(_ name: String) -> UInt32? {
    var entry = group()
    var found: UnsafeMutablePointer<group>?
    var buffer = [CChar](repeating: 0, count: 65536)
    let code = getgrnam_r(name, &entry, &buffer, buffer.count, &found)
    return code == 0 && found != nil ? entry.gr_gid : UInt32(name)
}

private func hostAddress(_ name: String) -> String? {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(name, nil, &hints, &list) == 0 else { return nil }
    defer { freeaddrinfo(list) }
    var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    // IPv4 first: `localhost` is where most workers listen.
    for family in [AF_INET, AF_INET6] {
        var next = list
        while let entry = next?.pointee {
            let size = socklen_t(text.count)
            if entry.ai_family == family,
                getnameinfo(entry.ai_addr, entry.ai_addrlen, &text, size, nil, 0, NI_NUMERICHOST) == 0
            {
                return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            }
            next = entry.ai_next
        }
    }
    return nil
}

/// Binds and listens for a moment, as the server will: with SO_REUSEADDR (socket(7)).
private func bindFailure(_ address: ListenAddress) -> String? {
    guard case .tcp(let host, let port) = address, let bytes = numericAddress(host) else { return nil }
    let isSix = bytes.count == 16
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let fd = socket(isSix ? AF_INET6 : AF_INET, kind, 0)
    guard fd >= 0 else { return reason() }
    defer { close(fd) }
    var on: Int32 = 1
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
    let bound: Int32
    if isSix {
        var name = sockaddr_in6()
        name.sin6_family = sa_family_t(AF_INET6)
        name.sin6_port = in_port_t(port).bigEndian
        withUnsafeMutableBytes(of: &name.sin6_addr) { $0.copyBytes(from: bytes) }
        bound = withUnsafePointer(to: &name) { bindTo(fd, $0) }
    } else {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = in_port_t(port).bigEndian
        withUnsafeMutableBytes(of: &name.sin_addr) { $0.copyBytes(from: bytes) }
        bound = withUnsafePointer(to: &name) { bindTo(fd, $0) }
    }
    return bound == 0 && listen(fd, 1) == 0 ? nil : reason()
}

private func bindTo<T>(_ fd: Int32, _ name: UnsafePointer<T>) -> Int32 {
    name.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(fd, $0, socklen_t(MemoryLayout<T>.size)) }
}
