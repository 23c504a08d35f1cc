//  TextEncoding.swift
//  Lines for people: what passes to a terminal, and what is stripped or escaped elsewhere.
//  Pure, over bytes. Read after JSONEscaping.swift; RecordSink.swift adds time and source.

/// The room that `encodeText` may use for so many bytes.
@inline(__always)
func textRoom(_ count: Int) -> Int { count * 4 + 32 }

/// Writes a worker's line as text and returns the end of what was written.
///
/// To a terminal its escapes pass, and colours are reset behind it; elsewhere escape sequences are left out and
/// other control characters written as `\x07`. Invalid UTF-8 becomes U+FFFD. `to` must have `textRoom(count)` bytes.
func encodeText(_ from: Bytes, _ count: Int, toTerminal: Bool, to: MutableBytes) -> MutableBytes {
    var s = from
    var d = to
    let end = from + count
    var sawEscape = false
    while s < end {
        while end - s >= 16 {
            let chunk = loadChunk(s)
            storeChunk(chunk, d)
            let clean = firstSpecial(chunk)
            s += clean
            d += clean
            if clean < 16 { break }
        }
        while s < end {
            let byte = s[0]
            if byte >= 0x80 {
                let step = utf8Step(s, end)
                if step > 0 {
                    for i in 0..<step { d[i] = s[i] }
                    s += step
                    d += step
                } else {
                    (d[0], d[1], d[2]) = (0xEF, 0xBF, 0xBD)
                    d += 3
                    s -= step
                }
            } else if byte >= 0x20, byte != 0x7F {
                d[0] = byte
                d += 1
                s += 1
                if end - s >= 16 { break }
            } else if toTerminal || byte == 0x09 {
                if byte == 0x1B { sawEscape = true }
                d[0] = byte
                d += 1
                s += 1
            } else if byte == 0x1B {
                s = skipSequence(s, end)
            } else {
                (d[0], d[1], d[2], d[3]) = (0x5C, 0x78, hexDigit(byte >> 4), hexDigit(byte & 15))
                d += 4
                s += 1
            }
        }
    }
    return sawEscape ? copy("\u{1B}[0m", to: d) : d
}

/// Past one escape sequence (ECMA-48): CSI to its final byte, OSC and its like to BEL or ST, else two bytes.
private func skipSequence(_ p: Bytes, _ end: Bytes) -> Bytes {
    guard p + 1 < end else { return end }
    var s = p + 2
    switch p[1] {
    case 0x5B:
        while s < end, s[0] >= 0x20, s[0] < 0x40 { s += 1 }
        return s < end && s[0] >= 0x40 && s[0] < 0x7F ? s + 1 : s
    case 0x5D, 0x50, 0x58, 0x5E, 0x5F:
        while s < end {
            if s[0] == 0x07 { return s + 1 }
            if s[0] == 0x1B { return s + 1 < end && s[1] == 0x5C ? s + 2 : s }
            s += 1
        }
        return end
    case 0x20..<0x30:
        while s < end, s[0] >= 0x20, s[0] < 0x30 { s += 1 }
        return s < end && s[0] < 0x7F && s[0] >= 0x30 ? s + 1 : s
    case 0x30..<0x7F:
        return s
    default:
        return p + 1
    }
}
