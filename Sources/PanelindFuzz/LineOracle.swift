//  LineOracle.swift
//  What a worker's bytes must become, said once more over whole lines: no pieces, no phases, no pointers.
//  CONTRACT section 8 has the words. Read before Lines.swift.

/// What must come out, in this order.
enum ExpectedRecord: Hashable {
    /// A JSON object of the worker's own: these bytes.
    case own([UInt8])
    /// One line; the prefix `<N>` may be left out.
    case line([UInt8])
    /// A line beyond the limit: parts that make these bytes.
    case cut([UInt8])
    /// A traceback: its lines, in one record, or in parts where it is too long for one.
    case traceback([[UInt8]])
}

/// The second opinion.
enum LineOracle {
    static func records(_ input: [UInt8], limit: Int) -> [ExpectedRecord] {
        var lines = input.split(separator: 0x0a, omittingEmptySubsequences: false).map { Array($0) }
        if lines.last == [] { lines.removeLast() }
        lines = lines.map { $0.last == 0x0d ? $0.dropLast() : $0 }
        var records: [ExpectedRecord] = []
        var index = 0
        while index < lines.count {
            let line = lines[index]
            if line.count > limit {
                records.append(.cut(line))
            } else if let end = traceback(lines, index, limit) {
                records.append(.traceback(Array(lines[index..<end])))
                index = end
                continue
            } else if isObject(line) {
                records.append(.own(line))
            } else {
                records.append(.line(line))
            }
            index += 1
        }
        return records
    }

    private static func isObject(_ line: [UInt8]) -> Bool {
        guard line.first(where: { ![0x20, 0x09, 0x0d].contains($0) }) == UInt8(ascii: "{") else { return false }
        return JSONReader.read(line) != nil
    }

    // MARK: tracebacks

    /// Where the traceback that begins here ends; nil where none does.
    private static func traceback(_ lines: [[UInt8]], _ start: Int, _ limit: Int) -> Int? {
        func line(_ index: Int) -> [UInt8]? {
            index < lines.count && lines[index].count <= limit ? lines[index] : nil
        }
        guard let first = line(start), isHead(first) || isGroupHead(first) else { return nil }
        var at = start
        // One traceback, and another one behind the sentence of a chain, and so on.
        while let head = line(at), isHead(head) || isGroupHead(head) {
            at += 1
            if isHead(head) {
                while let next = line(at), isFrame(next) { at += 1 }
                guard let error = line(at), isError(error) else { return at }
                at += 1
                while let next = line(at), isIndented(next), !isGroupHead(next) { at += 1 }
            } else {
                while let next = line(at), isInGroup(next) { at += 1 }
            }
            // A blank belongs to the whole only where the sentence of a chain follows.
            if let next = line(at), next.isEmpty, let sentence = line(at + 1), isChain(sentence) {
                at += 2
            } else if isHead(head), let next = line(at), isChain(next) {
                at += 1
            } else {
                return at
            }
            while let next = line(at), next.isEmpty { at += 1 }
        }
        return at
    }

    private static func isHead(_ line: [UInt8]) -> Bool { line.starts(with: "Traceback (most recent call last):".utf8) }

    private static func isGroupHead(_ line: [UInt8]) -> Bool {
        line.starts(with: "  + Exception Group Traceback (most recent call last):".utf8)
    }

    private static func isIndented(_ line: [UInt8]) -> Bool { line.first == 0x20 || line.first == 0x09 }

    private static func isFrame(_ line: [UInt8]) -> Bool {
        line.isEmpty || isIndented(line) || line.starts(with: "> ".utf8) || isHead(line)
    }

    private static func isInGroup(_ line: [UInt8]) -> Bool {
        let rest = line.drop { $0 == 0x20 }
        return rest.count < line.count && (rest.first == UInt8(ascii: "|") || rest.first == UInt8(ascii: "+"))
    }

    private static func isChain(_ line: [UInt8]) -> Bool {
        line.starts(with: "During handling of the above exception".utf8)
            || line.starts(with: "The above exception was the direct cause".utf8)
    }

    private static let levels: Set<String> = [
        "ERR", "INFO", "WARN", "CRIT", "ERROR", "DEBUG", "TRACE", "FATAL", "PANIC", "ALERT", "EMERG", "NOTICE",
        "SEVERE", "WARNING", "SUCCESS", "CRITICAL", "EMERGENCY",
    ]

    /// `Name: text`, `some.Name` or `Name:`, but not a logger's `INFO: text`.
    private static func isError(_ line: [UInt8]) -> Bool {
        let name = line.prefix { $0 != UInt8(ascii: ":") }
        func isLetter(_ byte: UInt8) -> Bool { byte >= 0x80 || byte == 0x5f || (0x61...0x7a).contains(byte | 0x20) }
        guard let first = name.first, isLetter(first) || line.isEmpty,
            name.allSatisfy({ isLetter($0) || (0x30...0x39).contains($0) || $0 == 0x2e }),
            !levels.contains(String(decoding: name, as: UTF8.self))
        else { return false }
        let rest = line.dropFirst(name.count)
        return rest.count < 2 || rest.dropFirst().first == 0x20
    }
}
