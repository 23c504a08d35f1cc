//  Parser.swift
//  Words into steps; a script that is wrong anywhere does nothing at all.
//  Read Language.swift and Step.swift before it.

/// Why a script cannot be obeyed.
struct ScriptError: Error, CustomStringConvertible {
    let description: String
}

/// A script as the worker gets it.
struct Script {
    var steps: [Step]
    /// `tag NAME …` as words, for the command lines of descendants.
    var tags: [String]
    /// `ready` comes somewhere, so the worker begins unready.
    var beginsUnready: Bool
}

/// Reads one script from left to right.
struct Parser {
    private let words: [String]
    private var position = 0
    private var tags: [String] = []
    private var sawReady = false

    private init(_ words: [String]) { self.words = words }

    /// The script in these words; throws ScriptError.
    static func script(_ words: [String]) throws -> Script {
        var parser = Parser(words)
        var steps: [Step] = []
        while parser.position < words.count { steps.append(try parser.step()) }
        return Script(steps: steps, tags: parser.tags, beginsUnready: parser.sawReady)
    }

    // MARK: words

    private var peek: String? { position < words.count ? words[position] : nil }

    private mutating func word(_ what: String, of step: String) throws -> String {
        guard let word = peek else { throw ScriptError(description: "cannot read step `\(step)`: \(what) is missing") }
        position += 1
        return word
    }

    private mutating func take(_ word: String) -> Bool {
        guard peek == word else { return false }
        position += 1
        return true
    }

    private func wrong(_ word: String, _ step: String, _ wanted: String) -> ScriptError {
        ScriptError(description: "cannot read step `\(step)`: `\(word)` is not \(wanted)")
    }

    private mutating func number(_ what: String, of step: String, in range: ClosedRange<Int>) throws -> Int {
        let word = try word(what, of: step)
        guard let number = Int(word), range.contains(number) else {
            throw wrong(word, step, "\(what) in \(range.lowerBound)...\(range.upperBound)")
        }
        return number
    }

    private mutating func time(of step: String) throws -> Nanoseconds {
        let word = try word("a time", of: step)
        guard let time = Self.time(word) else { throw wrong(word, step, "a time such as 250ms, 1.5s, 1m") }
        return time
    }

    private mutating func signal(of step: String) throws -> Int32 {
        let word = try word("a signal", of: step)
        guard let signal = Signals.number(word) else { throw wrong(word, step, "a signal such as TERM") }
        return signal
    }

    /// `[to stderr]` after output.
    private mutating func stream() throws -> Int32 {
        guard take("to") else { return 1 }
        let word = try word("stdout or stderr", of: "to")
        guard word == "stderr" || word == "stdout" else { throw wrong(word, "to", "stdout or stderr") }
        return word == "stderr" ? 2 : 1
    }

    /// A step for a descendant, checked here, handed on as words.
    private mutating func handedOn() throws -> [String] {
        let begin = position
        // What the descendant does about readiness is its own.
        let before = sawReady
        _ = try step()
        sawReady = before
        return Array(words[begin..<position])
    }

    // MARK: steps

    private mutating func step() throws -> Step {
        let name = try word("a step", of: "script")
        let step: Step
        if name.hasSuffix("-after") {
            let time = try time(of: name)
            step = .after(time, try self.step(String(name.dropLast(6))))
        } else {
            step = try self.step(name)
        }
        return take("after") ? .after(try time(of: "after"), step) : step
    }

    private mutating func step(_ name: String) throws -> Step {
        switch name {
        case "begin":
            var steps: [Step] = []
            while !take("end") { steps.append(try step()) }
            return .group(steps)
        case "tag":
            tags += ["tag", try word("a name", of: name)]
            return .nothing
        case "boot": return .boot(try time(of: name))
        case "sleep": return .sleep(try time(of: name))
        case "wait-file": return .waitFile(try word("a path", of: name))
        case "drain": return .drain
        case "every":
            let period = try time(of: name)
            let span = take("for") ? try time(of: name) : nil
            return .every(period, for: span, try step())
        case "exit": return .exit(Int32(try number("a code", of: name, in: 0...255)))
        case "signal-self": return .signalSelf(try signal(of: name))
        case "stop-self": return .signalSelf(19)
        case "ignore": return .ignore(try signal(of: name))
        case "on": return .on(try signal(of: name), try step())
        case "record-signals": return .recordSignals(try word("a path", of: name))
        case "spin": return .spin(optional(Self.time))
        case "allocate":
            let word = try word("a size", of: name)
            guard let size = Self.size(word) else { throw wrong(word, name, "a size such as 64KiB, 200MiB") }
            return .allocate(size)
        case "record": return .record(file: try word("a path", of: name), text: try word("a text", of: name))
        case "dump-state": return .dumpState(try word("a path", of: name))
        default: return try serving(name) ?? output(name) ?? tree(name) ?? unknown(name)
        }
    }

    private func unknown(_ name: String) throws -> Step {
        throw ScriptError(description: "cannot obey `\(name)`: no such step")
    }

    private mutating func serving(_ name: String) throws -> Step? {
        switch name {
        case "listen": return .listen(try address())
        case "stop-listening": return .stopListening
        case "health":
            if take("hang") { return .health(.hang) }
            if take("status-file") { return .health(.statusFile(try word("a path", of: name))) }
            return .health(.code(try number("a status, hang or status-file", of: name, in: 100...599)))
        case "ready":
            sawReady = true
            return .health(.code(200))
        case "unready": return .health(.code(503))
        case "hang": return .hang
        case "notify": return .notify(try word("a text", of: name))
        case "barrier": return .barrier
        case "notify-from-child":
            return .spawn(.child, count: 1, script: ["notify", try word("a text", of: name)])
        case "mainpid-child": return .mainPidChild
        case "watchdog":
            guard take("every") else {
                throw ScriptError(description: "cannot read step `watchdog`: `every T` is missing")
            }
            let period = try time(of: name)
            return .every(period, for: take("for") ? try time(of: name) : nil, .notify("WATCHDOG=1"))
        case "ready-fd":
            return .writeDescriptor(Int32(try number("a descriptor", of: name, in: 0...65535)), "\n", close: true)
        case "ready-fd-close":
            return .writeDescriptor(Int32(try number("a descriptor", of: name, in: 0...65535)), "", close: true)
        case "write-fd":
            let descriptor = Int32(try number("a descriptor", of: name, in: 0...65535))
            return .writeDescriptor(descriptor, try word("a text", of: name), close: false)
        default: return nil
        }
    }

    private mutating func output(_ name: String) throws -> Step? {
        switch name {
        case "print":
            let text = try word("a text", of: name)
            guard let count = Int(text), count >= 0, take("lines") else { return .print(text + "\n", to: try stream()) }
            let bytes = take("bytes") ? try number("a length", of: name, in: 1...(1 << 30)) : 0
            return .lines(count, bytes: bytes, to: try stream())
        case "print-text": return .print(try word("a text", of: name) + "\n", to: try stream())
        case "partial": return .print(try word("a text", of: name), to: try stream())
        case "binary": return .binary
        case "flood": return .flood(bytes: optional(Self.size), to: try stream())
        case "close-output": return .closeOutput
        default: return nil
        }
    }

    private mutating func tree(_ name: String) throws -> Step? {
        switch name {
        case "child": return .spawn(.child, count: 1, script: try handedOn())
        case "children":
            let count = try number("a count", of: name, in: 0...100_000)
            return .spawn(.child, count: count, script: try handedOn())
        case "setsid-child": return .spawn(.session, count: 1, script: try handedOn())
        case "daemonize-child": return .spawn(.daemon, count: 1, script: try handedOn())
        case "fork-orphans":
            let count = try number("a count", of: name, in: 0...100_000)
            return .spawn(.orphan, count: count, script: try handedOn())
        case "child-holds-stdout": return .spawn(.holdingStdout, count: 1, script: [])
        case "child-holds-listener": return .spawn(.holdingListener, count: 1, script: [])
        case "fork-bomb": return .forkBomb(try number("a count", of: name, in: 0...100_000))
        case "hop": return .hop(try number("a count", of: name, in: 0...1_000_000), try time(of: name))
        case "zombie": return .zombie
        default: return nil
        }
    }

    private mutating func address() throws -> Address {
        let word = try word("an address", of: "listen")
        switch word {
        case "env": return .environment("PORT")
        case "fd": return .descriptor(Int32(try number("a descriptor", of: "listen fd", in: 0...65535)))
        case "unix": return .unix(try self.word("a path", of: "listen unix"))
        case "activated": return .activated
        default:
            if word.hasPrefix("env:") { return .environment(String(word.dropFirst(4))) }
            if let port = UInt16(word) { return .tcp(host: "127.0.0.1", port: port) }
            let parts = word.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, let port = UInt16(parts[1]) else {
                throw wrong(word, "listen", "a port, HOST:PORT, env, fd N, unix PATH or activated")
            }
            return .tcp(host: String(parts[0]), port: port)
        }
    }

    private mutating func optional<Value>(_ read: (String) -> Value?) -> Value? {
        guard let value = peek.flatMap(read) else { return nil }
        position += 1
        return value
    }

    // MARK: quantities

    /// `250ms`, `1.5s`, `2m` in nanoseconds.
    static func time(_ text: String) -> Nanoseconds? {
        for (suffix, unit) in [("ms", 1e6), ("us", 1e3), ("s", 1e9), ("m", 60e9)] where text.hasSuffix(suffix) {
            guard let value = Double(text.dropLast(suffix.count)), value >= 0, value < 1e6 else { return nil }
            return Nanoseconds(value * unit)
        }
        return nil
    }

    /// `4096`, `64KiB`, `200MiB`, `1GiB` in bytes.
    static func size(_ text: String) -> Int? {
        for (suffix, shift) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] where text.hasSuffix(suffix) {
            guard let value = Int(text.dropLast(3)), (0...(1 << 20)).contains(value) else { return nil }
            return value << shift
        }
        guard let value = Int(text), value >= 0 else { return nil }
        return value
    }
}
