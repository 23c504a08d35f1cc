//  Tracebacks.swift
//  Which lines are one Python traceback, so that they become one entry.
//  Pure: a phase and a line give the next phase. Read after LineSeverity.swift; Source.swift keeps the lines.

/// Where in a traceback a stream is.
enum TracebackPhase: UInt8 {
    /// In none.
    case none
    /// After its first line: frames, each indented, until the error's own line.
    case frames
    /// In an exception group, every line of which is indented behind `|` or `+`.
    case group
    /// After the error's line: indented lines of its message, or a blank and then a chain, may follow.
    case ended
    /// After a blank line behind the error: a chain's sentence, or it is over and the blank was not part of it.
    case blank
    /// After a chain's sentence: a blank and the next traceback.
    case chained
}

/// The phase that this line begins from none; `.none` for nearly all lines.
@inline(__always)
func tracebackBegins(_ p: Bytes, _ count: Int) -> TracebackPhase {
    guard count >= 34 else { return .none }
    if p[0] == 0x54 { return starts(p, count, with: "Traceback (most recent call last):") ? .frames : .none }
    if p[0] == 0x20 {
        return starts(p, count, with: "  + Exception Group Traceback (most recent call last):") ? .group : .none
    }
    return .none
}

/// The phase after this line of a traceback; `.none` means that the line is not part of it.
func tracebackContinues(_ phase: TracebackPhase, _ p: Bytes, _ count: Int) -> TracebackPhase {
    let isBlank = count == 0
    let isIndented = count > 0 && (p[0] == 0x20 || p[0] == 0x09)
    switch phase {
    case .none:
        return tracebackBegins(p, count)
    case .frames:
        // loguru marks the frame that caught with `> ` and puts blank lines between frames.
        if isBlank || isIndented || starts(p, count, with: "> ") { return .frames }
        if tracebackBegins(p, count) == .frames { return .frames }
        return namesError(p, count) ? .ended : .none
    case .group:
        if isBlank { return .blank }
        var i = 0
        while i < count, p[i] == 0x20 { i += 1 }
        return i > 0 && i < count && (p[i] == 0x7C || p[i] == 0x2B) ? .group : .none
    case .ended:
        if isIndented { return tracebackBegins(p, count) == .group ? .none : .ended }
        if isBlank { return .blank }
        return isChain(p, count) ? .chained : .none
    case .blank:
        return isChain(p, count) ? .chained : .none
    case .chained:
        return isBlank ? .chained : tracebackBegins(p, count)
    }
}

private func isChain(_ p: Bytes, _ count: Int) -> Bool {
    starts(p, count, with: "During handling of the above exception")
        || starts(p, count, with: "The above exception was the direct cause")
}

/// `ValueError: text`, `socket.timeout`, `KeyboardInterrupt`; not the next line of a logger (`INFO: text`).
private func namesError(_ p: Bytes, _ count: Int) -> Bool {
    guard (p[0] | 0x20) &- 0x61 < 26 || p[0] == 0x5F || p[0] >= 0x80 else { return false }
    var i = 0
    var capitals = true
    while i < count, p[i] != 0x3A {
        let byte = p[i]
        guard (byte | 0x20) &- 0x61 < 26 || byte &- 0x30 < 10 || byte == 0x5F || byte == 0x2E || byte >= 0x80 else {
            return false
        }
        if byte &- 0x41 >= 26 { capitals = false }
        i += 1
    }
    if capitals, levelWord(p, i) != nil { return false }
    return i == count || i + 1 == count || p[i + 1] == 0x20
}
