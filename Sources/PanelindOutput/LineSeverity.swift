//  LineSeverity.swift
//  What a worker's line says: how bad it is, by its own logger's prefix, and whether its port is taken.
//  Pure, over bytes. Read after UTF8.swift; the table of shapes is its test.

/// What a line's prefix says.
struct LinePrefix: Equatable {
    var severity: Severity
    /// Bytes to leave out of the message: the three of `<N>`, else none.
    var drop: Int
}

/// The severity that the head of a line names, INFO where it names none.
///
/// Reads `<N>` of sd-daemon(3), `LEVEL:`, `[LEVEL]`, `TIME [LEVEL]`, `TIME | LEVEL |`, `TIME - name - LEVEL -`,
/// `level=LEVEL`. Terminal colours around the word do not hide it.
func linePrefix(_ p: Bytes, _ count: Int) -> LinePrefix {
    guard count >= 3 else { return LinePrefix(severity: .info, drop: 0) }
    let first = p[0]
    if first == 0x3C {
        if p[2] == 0x3E, p[1] &- 0x30 < 8 { return LinePrefix(severity: syslog(p[1] &- 0x30), drop: 3) }
        return LinePrefix(severity: .info, drop: 0)
    }
    var severity: Severity?
    if (first | 0x20) &- 0x61 < 26 {
        severity = leadingWord(p, count)
    } else if first &- 0x30 < 10 || first == 0x5B {
        severity = afterTime(p, count)
    } else if first == 0x1B {
        let at = skipEscapes(p, 0, count)
        if at < count {
            let next = p[at]
            severity =
                (next | 0x20) &- 0x61 < 26 ? leadingWord(p + at, count - at) : afterTime(p + at, count - at)
        }
    }
    return LinePrefix(severity: severity ?? .info, drop: 0)
}

/// The levels of syslog(3).
private func syslog(_ level: UInt8) -> Severity {
    switch level {
    case 0: .emergency
    case 1: .alert
    case 2: .critical
    case 3: .error
    case 4: .warning
    case 5: .notice
    case 6: .info
    default: .debug
    }
}

/// The end of the run of letters that begins at `at`, at most 10 further.
@inline(__always)
private func wordEnd(_ p: Bytes, _ at: Int, _ count: Int) -> Int {
    var i = at
    let stop = min(count, at + 10)
    while i < stop, (p[i] | 0x20) &- 0x61 < 26 { i += 1 }
    return i
}

/// The severity that a word of letters names, or nil.
func levelWord(_ p: Bytes, _ length: Int) -> Severity? {
    switch length {
    case 3:
        if isWord(p, "err") { return .error }
    case 4:
        if isWord(p, "info") { return .info }
        if isWord(p, "warn") { return .warning }
        if isWord(p, "crit") { return .critical }
    case 5:
        if isWord(p, "error") { return .error }
        if isWord(p, "debug") || isWord(p, "trace") { return .debug }
        if isWord(p, "fatal") || isWord(p, "panic") { return .critical }
        if isWord(p, "alert") { return .alert }
        if isWord(p, "emerg") { return .emergency }
    case 6:
        if isWord(p, "notice") { return .notice }
        if isWord(p, "severe") { return .error }
    case 7:
        if isWord(p, "warning") { return .warning }
        // loguru's own level between INFO and WARNING.
        if isWord(p, "success") { return .info }
    case 8:
        if isWord(p, "critical") { return .critical }
    case 9:
        if isWord(p, "emergency") { return .emergency }
    default: break
    }
    return nil
}

@inline(__always)
private func isWord(_ p: Bytes, _ word: StaticString) -> Bool {
    let t = word.utf8Start
    var i = 0
    while i < word.utf8CodeUnitCount {
        if p[i] | 0x20 != t[i] { return false }
        i += 1
    }
    return true
}

@inline(__always)
private func isUpper(_ p: Bytes, _ length: Int) -> Bool {
    var i = 0
    while i < length {
        if p[i] &- 0x41 >= 26 { return false }
        i += 1
    }
    return true
}

/// Past `ESC [ … letter` sequences.
private func skipEscapes(_ p: Bytes, _ at: Int, _ count: Int) -> Int {
    var i = at
    while i + 1 < count, p[i] == 0x1B, p[i + 1] == 0x5B {
        i += 2
        while i < count, p[i] &- 0x40 >= 0x3F { i += 1 }
        i += 1
    }
    return min(i, count)
}

/// `LEVEL:` in any case, `LEVEL ` in capitals, or logfmt with a `level=`.
private func leadingWord(_ p: Bytes, _ count: Int) -> Severity? {
    let end = wordEnd(p, 0, count)
    if end >= 3, end <= 9, let level = levelWord(p, end) {
        let at = end < count && p[end] == 0x1B ? skipEscapes(p, end, count) : end
        if at == count { return isUpper(p, end) ? level : nil }
        if p[at] == 0x3A { return level }
        if p[at] == 0x20 || p[at] == 0x09 || p[at] == 0x7C || p[at] == 0x5B { return isUpper(p, end) ? level : nil }
        if p[at] != 0x3D { return nil }
    }
    if end < count, p[end] == 0x3D, end <= 5 { return logfmt(p, count) }
    return nil
}

/// The value of `level=` or `lvl=` in the first 128 bytes.
private func logfmt(_ p: Bytes, _ count: Int) -> Severity? {
    let stop = min(count, 128)
    var i = 0
    while i < stop {
        if i == 0 || p[i - 1] == 0x20 {
            var value = 0
            if starts(p + i, stop - i, with: "level=") { value = i + 6 }
            if starts(p + i, stop - i, with: "lvl=") { value = i + 4 }
            if value > 0 {
                if value < stop, p[value] == 0x22 { value += 1 }
                return levelWord(p + value, wordEnd(p, value, count) - value)
            }
        }
        i += 1
    }
    return nil
}

/// A line that begins with a time or a bracket: the first word after numbers, and one name, if it is a level.
private func afterTime(_ p: Bytes, _ count: Int) -> Severity? {
    let stop = min(count, 160)
    var i = 0
    var names = 0
    var tokens = 0
    while i < stop, tokens < 8 {
        var inBracket = false
        while i < stop, p[i] == 0x20 || p[i] == 0x09 || p[i] == 0x5B || p[i] == 0x5D || p[i] == 0x7C || p[i] == 0x1B {
            if p[i] == 0x1B {
                i = max(i + 1, skipEscapes(p, i, stop))
            } else {
                inBracket = p[i] == 0x5B || (inBracket && p[i] != 0x5D)
                i += 1
            }
        }
        let begin = i
        while i < stop, p[i] != 0x20, p[i] != 0x09, p[i] != 0x5B, p[i] != 0x5D, p[i] != 0x7C, p[i] != 0x1B { i += 1 }
        if begin == i { return nil }
        tokens += 1
        if p[begin] &- 0x30 < 10 || ((p[begin] == 0x2B || p[begin] == 0x2D) && i - begin > 1) { continue }
        if i - begin == 1, p[begin] == 0x2D { return dashed(p, begin, stop) }
        let end = wordEnd(p, begin, stop)
        if end == i || p[end] == 0x3A, let level = levelWord(p + begin, end - begin),
            inBracket || isUpper(p + begin, end - begin)
        {
            return level
        }
        names += 1
        if names > 1 { return nil }
    }
    return nil
}

/// The fields between ` - `, the first four: one that is exactly a level in capitals.
private func dashed(_ p: Bytes, _ at: Int, _ stop: Int) -> Severity? {
    var i = at
    var fields = 0
    while i + 1 < stop, fields < 4 {
        // Here p[i] is a dash between two fields.
        i += 1
        while i < stop, p[i] == 0x20 { i += 1 }
        let begin = i
        let end = wordEnd(p, begin, stop)
        if end > begin, end == stop || p[end] == 0x20 || p[end] == 0x3A, isUpper(p + begin, end - begin),
            let level = levelWord(p + begin, end - begin)
        {
            return level
        }
        while i + 2 < stop, !(p[i] == 0x20 && p[i + 1] == 0x2D && p[i + 2] == 0x20) { i += 1 }
        i += 1
        fields += 1
    }
    return nil
}

/// The spellings, in lower case: libc, Python, gunicorn, Node, Go, Java, Rust, nginx, Docker, Windows runtimes under
/// Linux.
private let spellings: [StaticString] = [
    "address already in use", "eaddrinuse", "errno 98", "errno: 98", "errno=98", "os error 98", "(98)",
    "port is already allocated", "only one usage of each socket address", "bind: address in use",
    "address in use", "port is already in use", "port already in use", "is already in use by another",
    "failed to bind to port", "bindexception", "connection in use: ",
]

/// The index of the last line that says so, or nil.
func portInUseLine(_ lines: [String]) -> Int? {
    lines.lastIndex { line in
        var line = line
        return line.withUTF8 { bytes in
            guard let p = bytes.baseAddress else { return false }
            return saysPortInUse(p, bytes.count)
        }
    }
}

/// Whether these bytes say that an address or a port is taken.
func saysPortInUse(_ p: Bytes, _ count: Int) -> Bool {
    for spelling in spellings where contains(p, count, spelling) { return !isPortNumberAlone(p, count, spelling) }
    // `Port 8000 is in use`: Flask, Werkzeug, Vite.
    return contains(p, count, "port ") && contains(p, count, "in use")
}

/// `(98)` alone could be any number in brackets: it counts only beside "bind" or "address".
private func isPortNumberAlone(_ p: Bytes, _ count: Int, _ spelling: StaticString) -> Bool {
    guard spelling.utf8CodeUnitCount == 4 else { return false }
    return !contains(p, count, "bind") && !contains(p, count, "address")
}
