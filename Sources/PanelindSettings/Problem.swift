//  Problem.swift
//  Where a value came from, and how an error about it reads.
//  Shape: `cannot use KEY=VALUE: why; what next (place)`. Read after Node.swift.

/// Where an effective value came from (CONTRACT section 1, `check`).
public enum Origin: Hashable, Sendable {
    /// Built in.
    case `default`
    /// Built in for this platform.
    case platform
    /// A line of the configuration file.
    case file(String, line: Int)
    /// A variable of panelind's environment.
    case environment(String)
    /// The command line, as it was written: `--set stop.budget`, or `--`.
    case flag(String)

    /// `default`, `platform`, `file`, `environment` or `flag`.
    public var name: String {
        switch self {
        case .default: "default"
        case .platform: "platform"
        case .file: "file"
        case .environment: "environment"
        case .flag: "flag"
        }
    }

    /// `panelind.yaml:14`, `PANELIND_STOP_BUDGET`, `--set stop.budget`; nil for what is built in.
    public var place: String? {
        switch self {
        case .default, .platform: nil
        case .file(let path, let line): "\(path):\(line)"
        case .environment(let variable): variable
        case .flag(let text): text
        }
    }

    /// Somebody wrote it: it is not built in.
    public var isGiven: Bool { place != nil }
}

/// One error in the settings.
public struct SettingsProblem: Hashable, Sendable, CustomStringConvertible {
    /// What `run` exits with; `check` always says 78.
    public enum Kind: Hashable, Sendable {
        /// 78
        case configuration
        /// The worker's command does not exist: 127.
        case commandMissing
        /// The worker's command cannot be executed: 126.
        case commandNotExecutable
        /// An address that cannot be bound: 71.
        case cannotBind
    }

    public var kind: Kind
    /// The key it is about; nil for a file that is no YAML.
    public var key: String?
    /// The whole sentence, without a full stop.
    public var message: String

    /// `cannot use stop.budget=5: …`
    public var description: String { message }

    /// An error about a value: `cannot use KEY=VALUE: why (place)`.
    init(_ key: String, _ value: String?, _ why: String, _ origin: Origin, kind: Kind = .configuration) {
        self.kind = kind
        self.key = key
        // What sits in the environment of the worker may be private.
        let isPrivate = key.hasPrefix(Table.environment.key)
        let what = isPrivate ? key : value.map { "\(key)=\(shortened($0))" } ?? key
        message = Self.sentence("cannot use \(what): \(why)" + (origin.place.map { " (\($0))" } ?? ""))
    }

    /// An error about something else than one value.
    public init(message: String, key: String? = nil) {
        kind = .configuration
        self.key = key
        self.message = Self.sentence(message)
    }

    /// One line and bounded, whatever was written in the values that it names.
    private static func sentence(_ text: String) -> String { shortened(text, to: 4000) }
}

/// Why a value is not what its key wants: a clause that says what would be right.
struct BadValue: Error, Hashable {
    var why: String
    /// The part of the value that is wrong, where that is not all of it.
    var part: Node?

    init(_ why: String, part: Node? = nil) {
        self.why = why
        self.part = part
    }
}

/// The known word nearest to a wrong one, if any is near: for `did you mean`.
func nearest(to word: String, in known: [String]) -> String? {
    guard word.utf8.count <= 64 else { return nil }
    let lower = word.lowercased()
    var best: (word: String, distance: Int)?
    for candidate in known {
        let distance = editDistance(lower, candidate.lowercased())
        if distance < best?.distance ?? .max { best = (candidate, distance) }
    }
    guard let best, best.distance <= max(2, word.utf8.count / 4) else { return nil }
    return best.word
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (Damerau, CACM 1964).
func editDistance(_ a: String, _ b: String) -> Int {
    let a = Array(a.utf8), b = Array(b.utf8)
    if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
    var before: [Int] = []
    var previous = Array(0...b.count)
    for i in 1...a.count {
        var row = [i]
        row.reserveCapacity(b.count + 1)
        for j in 1...b.count {
            var least = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
            if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { least = min(least, before[j - 2] + 1) }
            row.append(least)
        }
        before = previous
        previous = row
    }
    return previous[b.count]
}
