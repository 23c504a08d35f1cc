//  Spawning.swift
//  Hands a request to the C shim and turns what failed into a sentence.
//  Read SpawnRequest.swift before it; the order of the steps is in spawn.c.

import CPanelindSystem
import Glibc
import PanelindCore

/// Which step of a start failed, and what the kernel answered.
public struct SpawnError: Error, Hashable, Sendable {
    /// The steps in their order.
    public enum Step: Int32, Hashable, Sendable {
        /// An argument or a variable contains NUL.
        case text = 0
        case clone = 1
        /// Descriptors moved out of the way, /dev/null opened.
        case stage, group, limit, groups, gid, uid, directory, deathSignal, parent, descriptors, exec
    }
    public var step: Step
    /// What the kernel answered (errno(3)).
    public var error: SystemError
    /// What the step was about, where the request names it: a limit, a directory, a descriptor.
    public var subject: String

    /// Makes an error.
    public init(step: Step, error: SystemError, subject: String = "") {
        self.step = step
        self.error = error
        self.subject = subject
    }

    /// As the machine and the log want it; looks at the file once more to say what exec's ENOENT meant.
    public func startFailure(of request: SpawnRequest) -> StartFailure {
        let start = "cannot start worker \"\(request.executable)\": "
        switch step {
        case .exec: return execFailure(start, request)
        case .clone:
            let scarce = [EAGAIN, ENOMEM, EMFILE, ENFILE].contains(error.number)
            return StartFailure(scarce ? .noProcess : .other, start + "no process could be created: \(error)")
        case .text: return StartFailure(.other, start + "\(subject) contains a NUL byte")
        case .stage: return StartFailure(.other, start + "cannot prepare \(subject): \(error)")
        case .group: return StartFailure(.other, start + "cannot make a process group: \(error)")
        case .limit: return StartFailure(.other, start + "cannot set \(subject): \(error)")
        case .groups: return StartFailure(.other, start + "cannot set supplementary groups: \(error)")
        case .gid: return StartFailure(.other, start + "cannot change to group \(subject): \(error)")
        case .uid: return StartFailure(.other, start + "cannot change to user \(subject): \(error)")
        case .directory: return StartFailure(.other, start + "cannot change to directory \"\(subject)\": \(error)")
        case .deathSignal: return StartFailure(.other, start + "cannot set the parent death signal: \(error)")
        case .parent: return StartFailure(.other, start + "panelind ended meanwhile")
        case .descriptors: return StartFailure(.other, start + "cannot place \(subject): \(error)")
        }
    }

    private func execFailure(_ start: String, _ request: SpawnRequest) -> StartFailure {
        var path = request.executable
        if !path.hasPrefix("/"), let directory = request.directory { path = directory + "/" + path }
        switch error.number {
        case ENOENT, ENOTDIR:
            if access(path, F_OK) == 0, let interpreter = Interpreter.named(in: path) {
                return StartFailure(
                    .notFound,
                    start + "the file is there, but its \(interpreter.kind) \"\(interpreter.path)\" is not: "
                        + "\(error)")
            }
            return StartFailure(.notFound, start + "\(error)")
        case EACCES, ENOEXEC, EISDIR, EPERM, ELIBBAD, ETXTBSY:
            return StartFailure(.notExecutable, start + "\(error)")
        // execve answers EAGAIN when the user's RLIMIT_NPROC is exceeded after the change of uid.
        case EAGAIN, ENOMEM: return StartFailure(.noProcess, start + "\(error)")
        default: return StartFailure(.other, start + "\(error)")
        }
    }
}

/// What else a file needs to be executed.
enum Interpreter {
    /// The program of a `#!` line, or the loader of an ELF file (elf(5), PT_INTERP); nil where there is none.
    static func named(in path: String) -> (kind: String, path: String)? {
        guard case .success(let bytes) = readFile(path, limit: 4096) else { return nil }
        if bytes.starts(with: [0x23, 0x21]) {
            let line = bytes.dropFirst(2).prefix { $0 != 0x0A && $0 != 0 }.drop { $0 == 0x20 || $0 == 0x09 }
            let name = line.prefix { $0 != 0x20 && $0 != 0x09 }
            return name.isEmpty ? nil : ("interpreter", String(decoding: name, as: UTF8.self))
        }
        guard bytes.starts(with: [0x7F, 0x45, 0x4C, 0x46]), bytes.count >= 64 else { return nil }
        let wide = bytes[4] == 2
        func number(_ at: Int, _ size: Int) -> Int? {
            guard at >= 0, at + size <= bytes.count else { return nil }
            return (0..<size).reduce(0) { $0 | Int(truncatingIfNeeded: UInt64(bytes[at + $1]) << (8 * UInt64($1))) }
        }
        guard let table = wide ? number(32, 8) : number(28, 4), let entry = number(wide ? 54 : 42, 2),
            let count = number(wide ? 56 : 44, 2), table >= 0, table < bytes.count
        else { return nil }
        for index in 0..<count {
            let at = table + index * entry
            guard number(at, 4) == 3, let offset = number(at + (wide ? 8 : 4), wide ? 8 : 4),
                let size = number(at + (wide ? 32 : 16), wide ? 8 : 4)
            else { continue }
            guard offset >= 0, size > 0, size < 4096, offset <= bytes.count - size else { return nil }
            return ("loader", String(decoding: bytes[offset..<(offset + size)].prefix { $0 != 0 }, as: UTF8.self))
        }
        return nil
    }
}

/// A process that was started, before `Children` knows it.
struct Spawned {
    var pid: Int32
    /// -1 where the kernel has none.
    var pidfd: Int32
}

/// Starts a process; the thread waits until its exec (some hundred microseconds), and must live as long as it does.
func spawn(_ request: SpawnRequest, features: Features) -> Result<Spawned, SpawnError> {
    func refuse(_ subject: String) -> Result<Spawned, SpawnError> {
        .failure(SpawnError(step: .text, error: SystemError(EINVAL), subject: subject))
    }
    if request.executable.utf8.contains(0) { return refuse("the command") }
    if let index = request.arguments.firstIndex(where: { $0.utf8.contains(0) }) { return refuse("argument \(index)") }
    if let entry = request.environment.first(where: { $0.utf8.contains(0) }) {
        return refuse("variable \(entry.prefix { $0 != "=" })")
    }
    if request.directory?.utf8.contains(0) == true { return refuse("the directory") }

    var block = StringBlock()
    defer { block.free() }
    let path = block.add(request.executable)
    let arguments = block.vector(request.arguments)
    var environment = request.environment
    var places: [Int] = []
    for (name, wanted) in [("LISTEN_PID=", request.setsListenPID), ("WATCHDOG_PID=", request.setsWatchdogPID)]
    where wanted {
        environment.removeAll { $0.hasPrefix(name) }
        places.append(environment.count)
        // Room for the digits, which the child writes itself.
        environment.append(name + "000000000000")
    }
    let variables = block.vector(environment)
    let descriptors = request.extraDescriptors.sorted { $0.target < $1.target }
        .map { panelind_descriptor(target: $0.target, source: $0.source) }
    let limits = request.limits.map { panelind_limit(resource: $0.resource.number, value: $0.value) }
    let groups: [gid_t] = request.credentials?.groups ?? []

    var call = panelind_spawn()
    call.path = UnsafePointer(path)
    call.arguments = UnsafePointer(arguments)
    call.environment = UnsafePointer(variables)
    for (slot, index) in places.enumerated() {
        guard let entry = variables[index] else { continue }
        let digits = entry + (slot == 0 && request.setsListenPID ? "LISTEN_PID=" : "WATCHDOG_PID=").utf8.count
        if slot == 0 { call.pid_places.0 = digits } else { call.pid_places.1 = digits }
    }
    if let directory = request.directory { call.directory = UnsafePointer(block.add(directory)) }
    call.standard = (
        request.standardInput == .inherit ? Int32(PANELIND_INHERIT) : Int32(PANELIND_NULL),
        request.standardOutput ?? Int32(PANELIND_INHERIT), request.standardError ?? Int32(PANELIND_INHERIT)
    )
    if let credentials = request.credentials {
        call.changes_credentials = 1
        call.uid = credentials.uid
        call.gid = credentials.gid
    }
    call.new_process_group = request.newProcessGroup ? 1 : 0
    call.wants_pidfd = features.pidfd ? 1 : 0
    call.closing = features.closeRange ? request.closing : max(request.closing, Int32(PANELIND_CLOSE_RANGE_INT))

    var pidfd: Int32 = -1
    let pid = descriptors.withUnsafeBufferPointer { descriptors in
        limits.withUnsafeBufferPointer { limits in
            groups.withUnsafeBufferPointer { groups in
                call.descriptors = descriptors.baseAddress
                call.descriptor_count = descriptors.count
                call.limits = limits.baseAddress
                call.limit_count = limits.count
                call.groups = groups.baseAddress
                call.group_count = groups.count
                return panelind_spawn(&call, &pidfd)
            }
        }
    }
    if pid > 0 { return .success(Spawned(pid: pid, pidfd: pidfd)) }
    let step = SpawnError.Step(rawValue: call.step) ?? .clone
    return .failure(
        SpawnError(step: step, error: SystemError(call.error), subject: subject(of: step, Int(call.detail), request)))
}

private func subject(of step: SpawnError.Step, _ detail: Int, _ request: SpawnRequest) -> String {
    switch step {
    case .stage, .descriptors:
        return detail < 3 ? ["stdin", "stdout", "stderr"][max(0, detail)] : "descriptor \(detail)"
    case .limit:
        guard request.limits.indices.contains(detail) else { return "a limit" }
        return "limit \(request.limits[detail].resource.rawValue)=\(request.limits[detail].value)"
    case .gid: return "\(request.credentials?.gid ?? 0)"
    case .uid: return "\(request.credentials?.uid ?? 0)"
    case .directory: return request.directory ?? "."
    default: return ""
    }
}

/// Copies of strings that C may keep and write to until `free`.
private struct StringBlock {
    private var strings: [UnsafeMutablePointer<CChar>] = []
    private var vectors: [UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>] = []

    mutating func add(_ text: String) -> UnsafeMutablePointer<CChar> {
        let bytes = text.utf8.count
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes + 1)
        text.withCString { copy.update(from: $0, count: bytes + 1) }
        strings.append(copy)
        return copy
    }

    /// A vector of C strings that ends with nil.
    mutating func vector(_ texts: [String]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> {
        let vector = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: texts.count + 1)
        for (index, text) in texts.enumerated() { (vector + index).initialize(to: add(text)) }
        (vector + texts.count).initialize(to: nil)
        vectors.append(vector)
        return vector
    }

    mutating func free() {
        strings.forEach { $0.deallocate() }
        vectors.forEach { $0.deallocate() }
        strings = []
        vectors = []
    }
}
