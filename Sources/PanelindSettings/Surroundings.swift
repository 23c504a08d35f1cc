//  Surroundings.swift
//  What the settings depend on beside their text: the request, the environment, and questions to the world.
//  Closures, so that tests answer them; the true answers are in GlibcWorld.swift. Read before Loader.swift.

/// What the command line says.
public struct SettingsRequest: Hashable, Sendable {
    /// `--config`; nil looks in the usual places.
    public var configPath: String?
    /// Each `--set KEY=VALUE`.
    public var overrides: [String]
    /// What follows `--`; empty for nothing.
    public var command: [String]
    /// Try whether the addresses can be bound: for `check`. `run` binds them itself, and a reload has them.
    public var bindsPorts: Bool

    /// Makes a request.
    public init(
        configPath: String? = nil, overrides: [String] = [], command: [String] = [], bindsPorts: Bool = false
    ) {
        self.bindsPorts = bindsPorts
        self.configPath = configPath
        self.overrides = overrides
        self.command = command
    }
}

/// What surrounds this process.
public struct Surroundings: Hashable, Sendable {
    public var environment: [String: String]
    /// Absolute.
    public var workingDirectory: String
    /// JOURNAL_STREAM is the device and inode of stdout (systemd.exec(5)).
    public var stdoutIsJournal = false
    public var stdoutIsTerminal = false
    /// Names of the sockets that LISTEN_FDS hands to this very process; `unknown` for one without a name.
    public var inheritedSockets: [String] = []

    /// Makes surroundings with nothing special.
    public init(environment: [String: String], workingDirectory: String) {
        self.environment = environment
        self.workingDirectory = workingDirectory
    }

    /// A path made absolute by the working directory.
    public func absolute(_ path: String) -> String { join(workingDirectory, path) }
}

/// A path seen from a directory: itself if absolute, the directory for `.`.
func join(_ directory: String, _ path: String) -> String {
    if path.hasPrefix("/") { return path }
    if path == "." { return directory }
    let rest = path.hasPrefix("./") ? String(path.dropFirst(2)) : path
    return directory.hasSuffix("/") ? directory + rest : directory + "/" + rest
}

/// What a path is.
public enum FileKind: Hashable, Sendable {
    case missing
    case directory
    case file
    /// A device, a pipe, a socket.
    case other
    /// It could not be asked; the reason reads `Permission denied`.
    case unreachable(String)
}

/// A user of the system (passwd(5), getgrouplist(3)).
public struct UserEntry: Hashable, Sendable {
    public var name: String
    public var uid: UInt32
    public var gid: UInt32
    /// Every group it is in, its own included.
    public var groups: [UInt32]

    /// Makes an entry.
    public init(name: String, uid: UInt32, gid: UInt32, groups: [UInt32]) {
        self.name = name
        self.uid = uid
        self.gid = gid
        self.groups = groups
    }
}

/// A file could not be read.
public enum ReadError: Error, Hashable, Sendable {
    case missing
    case directory
    /// More bytes than were asked for.
    case tooLarge
    /// The reason, as `Permission denied`.
    case failed(String)

    /// A clause for a message.
    public var text: String {
        switch self {
        case .missing: "no such file"
        case .directory: "a directory"
        case .tooLarge: "too large"
        case .failed(let why): "cannot be read: \(why)"
        }
    }
}

/// Questions to the world. Every path is absolute.
public struct World: Sendable {
    /// The bytes of a file, at most this many.
    public var read: @Sendable (String, Int) -> Result<[UInt8], ReadError>
    public var kind: @Sendable (String) -> FileKind
    /// May be executed by us (access(2)).
    public var isExecutable: @Sendable (String) -> Bool
    /// The first bytes of a file, at most 256; nil if it cannot be read.
    public var head: @Sendable (String) -> [UInt8]?
    /// By name or by number.
    public var user: @Sendable (String) -> UserEntry?
    /// By name or by number.
    public var group: @Sendable (String) -> UInt32?
    /// The numeric address of a host name.
    public var address: @Sendable (String) -> String?
    /// Why an address cannot be bound, as `Address already in use`; nil if it can.
    public var bindProblem: @Sendable (ListenAddress) -> String?
    /// Our own effective user.
    public var userID: UInt32
    /// We may become another user and group (CAP_SETUID and CAP_SETGID of capabilities(7)).
    public var changesUsers: @Sendable () -> Bool

    /// Makes a world of answers.
    public init(
        read: @escaping @Sendable (String, Int) -> Result<[UInt8], ReadError>,
        kind: @escaping @Sendable (String) -> FileKind,
        isExecutable: @escaping @Sendable (String) -> Bool,
        head: @escaping @Sendable (String) -> [UInt8]?,
        user: @escaping @Sendable (String) -> UserEntry?,
        group: @escaping @Sendable (String) -> UInt32?,
        address: @escaping @Sendable (String) -> String?,
        bindProblem: @escaping @Sendable (ListenAddress) -> String?,
        userID: UInt32,
        changesUsers: (@Sendable () -> Bool)? = nil
    ) {
        self.read = read
        self.kind = kind
        self.isExecutable = isExecutable
        self.head = head
        self.user = user
        self.group = group
        self.address = address
        self.bindProblem = bindProblem
        self.userID = userID
        self.changesUsers = changesUsers ?? { userID == 0 }
    }
}
