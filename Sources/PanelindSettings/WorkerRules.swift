//  WorkerRules.swift
//  The worker as a process: directory, variables, secrets, user, limits, and a command that exists.
//  Asks the world, so that what cannot work is refused before anything starts. Read after Serving.swift.

import PanelindCore

/// Whether a command can be started: as exec will look for it (execvpe(3)).
public struct CommandCheck: Sendable {
    var directory: String
    var searchPath: [String]
    var world: World

    /// Looks from the worker's directory, by PATH of the worker's environment.
    public init(directory: String, environment: [String: String], world: World) {
        self.directory = directory
        self.world = world
        // Without PATH, glibc looks here; the working directory it left out in 2.24.
        let path = environment["PATH"] ?? "/bin:/usr/bin"
        searchPath = path.split(separator: ":", omittingEmptySubsequences: false).map { $0.isEmpty ? "." : String($0) }
    }

    /// What a look-up finds.
    public enum Answer: Hashable, Sendable {
        /// An absolute path.
        case found(String)
        /// A clause: 127.
        case missing(String)
        /// A clause: 126.
        case notExecutable(String)
    }

    /// Where this command is, or why it cannot be started.
    public func find(_ name: String) -> Answer {
        if name.contains("/") { return judge(join(directory, name), named: name) }
        var refused: Answer?
        for place in searchPath {
            let path = join(join(directory, place), name)
            switch judge(path, named: path) {
            case .found(let path): return .found(path)
            case .notExecutable(let why): refused = refused ?? .notExecutable(why)
            case .missing: break
            }
        }
        return refused
            ?? .missing("no command \(shortened(name, to: 1000)) in PATH; install it, or write its path")
    }

    func problem(_ name: String) -> (SettingsProblem.Kind, String)? {
        switch find(name) {
        case .found: nil
        case .missing(let why): (.commandMissing, why)
        case .notExecutable(let why): (.commandNotExecutable, why)
        }
    }

    private func judge(_ path: String, named name: String) -> Answer {
        let name = shortened(name, to: 1000)
        switch world.kind(path) {
        case .missing: return .missing("no file \(name); write the path of a program")
        case .unreachable(let why): return .notExecutable("\(name) cannot be reached: \(why)")
        case .directory: return .notExecutable("\(name) is a directory; write the path of a program")
        case .other: return .notExecutable("\(name) is not a regular file; write the path of a program")
        case .file: break
        }
        guard world.isExecutable(path) else {
            return .notExecutable("\(name) is not executable; chmod +x it, or run it by its interpreter")
        }
        return header(path, name)
    }

    /// Refuses what exec would: text without `#!`, and an interpreter that is missing.
    ///
    /// Anything binary passes: binfmt_misc may know it.
    private func header(_ path: String, _ name: String) -> Answer {
        guard let head = world.head(path) else { return .found(path) }
        if head.starts(with: [0x23, 0x21]) {
            let line = head.dropFirst(2).prefix { $0 != 0x0A }
            let word = line.drop { $0 == 0x20 || $0 == 0x09 }.prefix { $0 != 0x20 && $0 != 0x09 && $0 != 0x0D }
            let interpreter = String(decoding: word, as: UTF8.self)
            if world.kind(join(directory, interpreter)) == .missing {
                return .missing(
                    "\(name) wants the interpreter \(shortened(interpreter, to: 1000)), which does not exist")
            }
            return .found(path)
        }
        if head.isEmpty { return .notExecutable("\(name) is empty") }
        let isText = head.allSatisfy { (0x20...0x7E).contains($0) || (0x09...0x0D).contains($0) || $0 >= 0x80 }
        return isText
            ? .notExecutable("\(name) is text without a #! line; add one, or run it by its interpreter")
            : .found(path)
    }
}

extension Resolver {
    mutating func resolveDirectory(_ surroundings: Surroundings, _ world: World) -> String {
        let directory = surroundings.absolute(value(Table.directory))
        switch world.kind(directory) {
        case .directory: break
        case .missing: report(Table.directory, "no such directory; create it, or write another")
        case .unreachable(let why): report(Table.directory, "cannot be reached: \(why)")
        case .file, .other: report(Table.directory, "not a directory; write one")
        }
        return directory
    }

    /// The added variables; shown without what looks secret.
    mutating func resolveEnvironment() -> [NamedText] {
        let variables = value(Table.environment)
        if !variables.isEmpty {
            // What was written, not what it expands to: the expansion may be private.
            var written: [String: String] = [:]
            if case .map(let entries)? = given[Table.environment.key]?.node.content {
                for entry in entries { written[entry.key] = entry.value.text }
            }
            let shown = variables.map { variable in
                let text = written[variable.name] ?? ""
                let isReference = text.hasPrefix("${") && text.hasSuffix("}") && !text.contains(":-")
                return NamedText(variable.name, looksSecret(variable.name) && !isReference ? "***" : text)
            }
            show(Table.environment, Table.environment.kind.show(shown), origin(Table.environment))
        }
        return variables
    }

    mutating func resolveSecrets(
        _ variables: [NamedText], _ surroundings: Surroundings, _ world: World
    ) -> [NamedText] {
        var secrets = value(Table.secrets)
        for (index, secret) in secrets.enumerated() {
            let path = surroundings.absolute(secret.text)
            secrets[index].text = path
            if variables.contains(where: { $0.name == secret.name }) {
                report(Table.secrets, "\(secret.name) is in worker.environment too; keep one")
            }
            if case .failure(let error) = readSecret(path, world) {
                report(Table.secrets, "\(secret.name): \(error.message)")
            }
        }
        return secrets
    }

    mutating func checkRequired(_ names: [String], _ variables: [NamedText], _ secrets: [NamedText]) {
        let environment = workerEnvironment(self.environment, adding: variables)
        let secret = Set(secrets.map(\.name))
        for name in names where !secret.contains(name) {
            switch environment[name] {
            case nil: report(Table.required, "\(name) is not set; set it, or give it in worker.secrets")
            case "": report(Table.required, "\(name) is empty; set it, or give it in worker.secrets")
            case _: break
            }
        }
    }

    mutating func resolveIdentity(_ world: World) -> Settings.Identity {
        var identity = Settings.Identity()
        let user = value(Table.user)
        let group = value(Table.group)
        if let user {
            if let entry = world.user(user) {
                identity = Settings.Identity(
                    uid: entry.uid, gid: entry.gid, groups: entry.groups, userName: entry.name)
            } else if let number = UInt32(user), number < .max {
                // In an image without passwd a number is all there is; its group must then be said.
                identity = Settings.Identity(uid: number, gid: nil, groups: [], userName: nil)
                if group == nil {
                    report(Table.user, "no entry in the user database for this number; give worker.group too")
                }
            } else {
                report(Table.user, "no such user; create it, or write a number")
            }
        }
        if let group {
            if let gid = world.group(group) ?? UInt32(group) {
                identity.gid = gid
                if user == nil { identity.groups = [] }
            } else {
                report(Table.group, "no such group; create it, or write a number")
            }
        }
        if !identity.isUnchanged, !world.changesUsers() {
            // Already that user: there is nothing to drop.
            if group == nil, identity.uid == world.userID { return Settings.Identity(userName: identity.userName) }
            report(
                user == nil ? Table.group : Table.user,
                "panelind runs as user \(world.userID) and may not become another; start it as root "
                    + "(CAP_SETUID, CAP_SETGID), or remove it")
        }
        return identity
    }

    mutating func resolveLimits() -> Settings.Limits {
        func number(_ value: Int??) -> UInt64? {
            switch value {
            case nil: nil
            case .some(nil): Settings.Limits.unlimited
            case .some(let number?): UInt64(number)
            }
        }
        let openFiles = number(value(Table.openFiles))
        if let openFiles, openFiles < 4 {
            report(
                Table.openFiles,
                "three are the standard streams, and no program starts without one more; write 4 or more")
        }
        return Settings.Limits(
            openFiles: openFiles, processes: number(value(Table.processes)),
            core: number(value(Table.core)), addressSpace: number(value(Table.addressSpace)))
    }

    /// A missing or unusable executable has kinds of its own: `run` exits 127 or 126.
    mutating func checkExecutable(_ command: CommandArgument, _ check: CommandCheck) {
        guard let name = command.literal else {
            report(Table.command, "a placeholder in the name of the program; write it in an argument")
            return
        }
        guard !name.isEmpty else {
            report(Table.command, "the name of the program is empty; write it")
            return
        }
        if let (kind, why) = check.problem(name) { report(Table.command, why, kind: kind) }
    }
}

/// Why a secret cannot be used; never its content.
public struct SecretError: Error, Hashable, Sendable {
    /// `cannot read /secrets/api-key: no such file`
    public var message: String
}

/// A secret as the worker gets it: the file without one trailing newline (CONTRACT section 2, `worker.secrets`).
///
/// At most 64 KiB of UTF-8 without NUL, which no variable can hold.
public func readSecret(_ path: String, _ world: World) -> Result<String, SecretError> {
    func refused(_ why: String) -> Result<String, SecretError> {
        .failure(SecretError(message: "cannot read \(shortened(path, to: 1000)): \(why)"))
    }
    switch world.read(path, 64 << 10) {
    case .failure(.missing): return refused("no such file; mount it there, or write another path")
    case .failure(.directory): return refused("a directory; write the path of the file in it")
    case .failure(let error): return refused(error.text)
    case .success(var bytes):
        if bytes.last == 0x0A {
            bytes.removeLast()
            // A file from Windows: the carriage return belongs to the newline.
            if bytes.last == 0x0D { bytes.removeLast() }
        }
        if bytes.isEmpty { return refused("empty; write the value into it") }
        if bytes.contains(0) { return refused("it holds a NUL byte, which no variable can") }
        guard let text = String(validating: bytes, as: UTF8.self) else { return refused("it is not UTF-8") }
        return .success(text)
    }
}
