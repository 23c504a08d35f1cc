//  Worker.swift
//  Obeys the steps: several sequences side by side, signals, output, around one poll.
//  Read Step.swift before it; Server.swift answers requests, Descendants.swift makes the tree.

import Glibc

/// The pipe into which the handler writes a signal's number; the loop reads it. Made on first use.
let bell: (read: Int32, write: Int32) = {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { fail("cannot make a pipe: \(reason())") }
    for end in ends {
        closeOnExec(end)
        nonBlocking(end)
    }
    return (ends[0], ends[1])
}()

/// Steps that run one after the other, and what the next one waits for.
struct Sequence {
    enum Wait {
        case nothing
        case until(Nanoseconds)
        case file(String)
        case drained
        case closed(Int32)
    }
    /// What is left, the next one last.
    var steps: [Step]
    var wait = Wait.nothing
}

/// The process that obeys a script.
final class Worker {
    let inherited: Inheritance
    let tags: [String]
    let server = Server()
    private var sequences: [Sequence]
    private var reactions: [Int32: [Step]] = [:]
    private var recordFile: String?
    private var flood: (left: Int?, stream: Int32, line: Int)?
    private var kept: [UnsafeMutableRawPointer] = []
    /// Children to reap when they end; a zombie is not among them.
    var children: Set<pid_t> = []

    init(script: Script, inherited: Inheritance) {
        self.inherited = inherited
        tags = script.tags
        sequences = [Sequence(steps: script.steps.reversed())]
        if script.beginsUnready { server.health = .code(503) }
    }

    /// Obeys, then serves until it is ended.
    func run() -> Never {
        while true {
            advance()
            wait()
        }
    }

    // MARK: sequences

    private func advance() {
        var index = 0
        // Steps may add sequences; they come behind and get their turn in the same pass.
        while index < sequences.count {
            while canGoOn(sequences[index].wait), let step = sequences[index].steps.popLast() {
                sequences[index].wait = .nothing
                let (first, wait) = obey(step)
                // `hang` has removed everything.
                guard index < sequences.count else { return }
                sequences[index].steps += first.reversed()
                sequences[index].wait = wait
            }
            index += 1
        }
        sequences.removeAll { $0.steps.isEmpty }
    }

    private func canGoOn(_ wait: Sequence.Wait) -> Bool {
        switch wait {
        case .nothing: return true
        case .until(let time): return monotonic() >= time
        case .file(let path): return access(path, F_OK) == 0
        case .drained: return server.inFlight == 0
        case .closed(let descriptor):
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, 0) > 0 else { return false }
            close(descriptor)
            return true
        }
    }

    /// Runs a script beside what runs already; what a request to /do brings.
    func start(_ steps: [Step]) { sequences.append(Sequence(steps: steps.reversed())) }

    /// Does it, and returns what comes first now and what that waits for.
    private func obey(_ step: Step) -> ([Step], Sequence.Wait) {
        switch step {
        case .nothing: break
        case .group(let steps): return (steps, .nothing)
        case .after(let time, let step):
            sequences.append(Sequence(steps: [step], wait: .until(monotonic() + time)))
        case .every(let period, let span, let step):
            let end = span.map { monotonic() + $0 }
            sequences.append(Sequence(steps: [.again(period, until: end, step)]))
        case .again(let period, let end, let step):
            if let end, monotonic() >= end { break }
            return ([step, .boot(period), .again(period, until: end, step)], .nothing)
        case .boot(let time): return ([.nothing], .until(monotonic() + time))
        case .sleep(let time): return ([.exit(0)], .until(monotonic() + time))
        case .waitFile(let path): return ([.nothing], .file(path))
        case .drain:
            server.drain()
            return ([.nothing], .drained)
        case .exit(let code): _exit(code)
        case .signalSelf(let number): die(of: number)
        case .ignore(let number):
            reactions[number] = []
            // While signals are recorded an ignored one is heard, and nothing done.
            if recordFile == nil { signal(number, SIG_IGN) } else { hear(number) }
        case .on(let number, let step):
            reactions[number, default: []].append(step)
            hear(number)
        case .recordSignals(let path):
            recordFile = path
            for number in Int32(1)...31
            where ![SIGKILL, SIGSTOP, SIGCHLD, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGCONT]
                .contains(number)
            { hear(number) }
            hear(SIGCONT)
        case .listen(let address): server.listen(address)
        case .stopListening: server.stopListening()
        case .health(let health): server.health = health
        case .hang:
            server.hung = true
            flood = nil
            sequences.removeAll()
        case .notify(let text): notify(Self.unescaped(text))
        case .barrier:
            var ends: [Int32] = [-1, -1]
            guard pipe(&ends) == 0 else { fail("cannot make a pipe: \(reason())") }
            ends.forEach(closeOnExec)
            notify("BARRIER=1", passing: ends[1])
            close(ends[1])
            return ([.nothing], .closed(ends[0]))
        case .mainPidChild: notify("MAINPID=\(spawn(.child, []))")
        case .writeDescriptor(let descriptor, let text, let ends):
            if !writeAll(descriptor, Array(Self.unescaped(text).utf8)) {
                complain("cannot write to descriptor \(descriptor): \(reason())")
            }
            if ends { close(descriptor) }
        case .print(let text, let stream): writeAll(stream, Array(text.utf8))
        case .lines(let count, let bytes, let stream): printLines(count, bytes: bytes, to: stream)
        case .binary: writeAll(1, Array(0...255) + [10])
        case .flood(let bytes, let stream): flood = (bytes, stream, 0)
        case .closeOutput:
            let null = open("/dev/null", O_WRONLY)
            dup2(null, 1)
            dup2(null, 2)
            close(null)
        case .spawn(let kind, let count, let script): spawn(kind, count: count, script)
        case .forkBomb(let count):
            // Each child counts itself, then has two of its own.
            for part in [(count + 1) / 2, count / 2] where part > 0 { spawn(.child, ["fork-bomb", "\(part - 1)"]) }
        case .hop(let count, let time):
            let script = ["boot", "\(time / 1000)us", "hop", "\(count - 1)", "\(time / 1000)us", "exit", "0"]
            if count > 0 { spawn(.session, script) }
        case .zombie: makeZombie()
        case .spin(let time):
            let end = time.map { monotonic() + $0 } ?? .max
            while monotonic() < end {}
        case .allocate(let size):
            let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
            memset(memory, 1, size)
            kept.append(memory)
        case .record(let file, let text): record(text, in: file)
        case .dumpState(let path): inherited.write(to: path)
        }
        return ([], .nothing)
    }

    private static func unescaped(_ text: String) -> String {
        var out = ""
        var rest = Substring(text)
        while let character = rest.popFirst() {
            if character == "\\", rest.first == "n" {
                rest.removeFirst()
                out.append("\n")
            } else {
                out.append(character)
            }
        }
        return out
    }

    // MARK: signals

    /// Has the signal's number written into the bell.
    func hear(_ number: Int32) {
        _ = bell
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { number in
            let before = errno
            var byte = UInt8(truncatingIfNeeded: number)
            _ = write(bell.write, &byte, 1)
            errno = before
        }
        // Without NOCLDSTOP a stopped child would look like an ended one.
        action.sa_flags = SA_RESTART | (number == SIGCHLD ? SA_NOCLDSTOP : 0)
        if sigaction(number, &action, nil) != 0 { fail("cannot hear \(Signals.name(number)): \(reason())") }
    }

    /// Ends by this signal's default, or stops.
    private func die(of number: Int32) {
        signal(number, SIG_DFL)
        kill(getpid(), number)
    }

    private func heard(_ number: Int32) {
        if number == SIGCHLD { reap() }
        if let recordFile { record(Signals.name(number), in: recordFile) }
        if let steps = reactions[number] { return start(steps) }
        guard recordFile != nil else { return }
        if [SIGTERM, SIGINT, SIGABRT].contains(number) { die(of: number) }
        if number == SIGTSTP { kill(getpid(), SIGSTOP) }
    }

    private func record(_ text: String, in file: String) { append("\(getpid()) \(monotonic()) \(text)\n", to: file) }

    // MARK: output

    private func printLines(_ count: Int, bytes: Int, to stream: Int32) {
        var buffer: [UInt8] = []
        for number in 0..<count {
            let text = Array("line \(number + 1)".utf8)
            buffer += text
            if bytes > text.count { buffer += repeatElement(UInt8(ascii: "."), count: bytes - text.count) }
            buffer.append(10)
            if buffer.count > 32_768 {
                writeAll(stream, buffer)
                buffer.removeAll(keepingCapacity: true)
            }
        }
        writeAll(stream, buffer)
    }

    private func pourFlood() {
        guard var now = flood else { return }
        // 4,000 bytes: a pipe that polls writable takes PIPE_BUF without blocking (pipe(7)).
        let chunk = floodLines(40, after: &now.line)
        if let left = now.left, left <= chunk.count {
            writeAll(now.stream, Array(chunk.prefix(left)))
            flood = nil
            return
        }
        writeAll(now.stream, chunk)
        now.left = now.left.map { $0 - chunk.count }
        flood = now
    }

    // MARK: the poll

    private func wait() {
        var entries = [pollfd(fd: bell.read, events: Int16(POLLIN), revents: 0)]
        if let flood { entries.append(pollfd(fd: flood.stream, events: Int16(POLLOUT), revents: 0)) }
        var next = server.nextTime ?? .max
        for sequence in sequences {
            switch sequence.wait {
            case .nothing, .drained: break
            case .until(let time): next = min(next, time)
            // The only thing asked again and again; tests make the file within moments.
            case .file: next = min(next, monotonic() + 5_000_000)
            case .closed(let descriptor): entries.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
            }
        }
        let own = entries.count
        entries += server.wanted()
        var timeout: Int32 = -1
        if next != .max { timeout = Int32(clamping: max(0, (next - monotonic() + 999_999) / 1_000_000)) }
        let count = poll(&entries, nfds_t(entries.count), timeout)
        if count > 0 {
            listenToBell()
            if flood != nil, entries.count > 1, entries[1].revents != 0 { pourFlood() }
            server.serve(entries[own...], for: self)
        }
        server.tick(for: self)
    }

    private func listenToBell() {
        var numbers = [UInt8](repeating: 0, count: 512)
        while true {
            let count = read(bell.read, &numbers, numbers.count)
            guard count > 0 else { return }
            for number in numbers[..<count] { heard(Int32(number)) }
        }
    }
}

/// The next numbered lines that a flood is made of, 100 bytes each.
func floodLines(_ count: Int, after line: inout Int) -> [UInt8] {
    let first = line + 1
    line += count
    return [UInt8](unsafeUninitializedCapacity: count * 100) { bytes, used in
        bytes.initialize(repeating: UInt8(ascii: "x"))
        for index in 0..<count {
            let start = index * 100
            for (offset, byte) in "flood ".utf8.enumerated() { bytes[start + offset] = byte }
            var number = first + index
            for offset in stride(from: 17, through: 6, by: -1) {
                bytes[start + offset] = UInt8(ascii: "0") + UInt8(number % 10)
                number /= 10
            }
            bytes[start + 18] = UInt8(ascii: " ")
            bytes[start + 99] = 10
        }
        used = count * 100
    }
}
