//  World.swift
//  Rounds without end around one front; and a watch on memory, which must stay what it was.
//  Read Round.swift first.

import Glibc
import PanelindCore
import PanelindFront

/// The whole front under fire.
public final class FrontFuzz {
    private let host: FrontHost
    private let listener: PrivateListener
    private var rounds: UInt64 = 0
    /// Requests that clients had to make so far.
    public private(set) var requests = 0

    /// Starts the front.
    public init() throws {
        listener = try PrivateListener()
        host = try FrontHost { settings in
            settings.headerTimeout = .seconds(5)
            settings.idleTimeout = .seconds(5)
            settings.responseTimeout = .seconds(10)
            settings.bodyLimit = 8 << 20
            settings.admission.hold = .milliseconds(800)
        }
    }

    /// Plays the round of a seed; the finding, or nil.
    public func run(seed: UInt64, isTraced: Bool = false) throws -> String? {
        rounds += 1
        if isTraced {
            try host.on { front in
                front.onFinished = { request in
                    print("front: \(request.methodAndTarget) \(request.status) \(request.reason ?? "well")")
                }
            }
        }
        let round = Round(
            seed: seed, host: host, listener: listener, generation: Generation(Int(rounds)), isTraced: isTraced)
        defer { requests += round.plans.count }
        return try round.play()
    }

    /// Ends it.
    public func stop() throws -> String? { try host.stop() ? nil : "something still holds the front" }
}

/// Whether memory grows.
public final class MemoryWatch {
    /// Bytes in use when it was first asked.
    private var warm: Int?

    public init() {}

    /// Whether memory grew since it was first asked; to be asked between inputs.
    public func finding() -> String? {
        let used = Self.bytesInUse()
        guard let warm else {
            warm = used
            return nil
        }
        return used > warm + (32 << 20) ? "\(used) bytes in use, \(warm) when it was warm" : nil
    }

    /// What the sanitizer counts, where there is one: it keeps what was freed for a while. Else the resident set.
    private static func bytesInUse() -> Int {
        typealias Count = @convention(c) () -> Int
        if let symbol = dlsym(dlopen(nil, RTLD_NOW), "__sanitizer_get_current_allocated_bytes") {
            return unsafeBitCast(symbol, to: Count.self)()
        }
        var text = [UInt8](repeating: 0, count: 256)
        let descriptor = open("/proc/self/statm", O_RDONLY)
        defer { close(descriptor) }
        let count = max(0, read(descriptor, &text, text.count))
        let fields = text[..<count].split(separator: 0x20)
        let pages = fields.count > 1 ? Int(String(decoding: fields[1], as: UTF8.self)) ?? 0 : 0
        return pages * 4096
    }
}
