//  TextEncoding.swift
//  Lines for people: colours pass to a terminal, what else would steer it is stripped or escaped.
//  Pure, over bytes. Read after JSONEscaping.swift; RecordSink.swift adds time and source.

/// The room that `encodeText` may use for so many bytes.
@inline(__always)
func textRoom(_ count: Int) -> Int { count * 4 + 32 }

/// Writes a worker's line as text and returns the end of what was written.
///
/// Escape sequences are left out and other control characters but the tab written as `\x07`: what a worker prints, which
/// may be what a stranger sent it, shall not steer the terminal. Colours (SGR of ECMA-48) alone pass to a terminal, and
/// are reset behind the line. Invalid UTF-8 becomes U+FFFD. `to` must have `textRoom(count)` bytes.
func encodeText(_ from: Bytes, _ count: Int, toTerminal: Bool, to: MutableBytes) -> MutableBytes {
    var s = from
    var d = to
    let end = from + count
    var sawColour = false
    while s < end {
        while end - s >= 16 {
            let chunk = loadChunk(s)
            storeChunk(chunk, d)
            let clean = firstSpecial(chunk, withDelete: true)
            s += clean
            d += clean
            if clean < 16 { break }
        }
        while s < end {
            let byte = s[0]
            if byte >= 0x80 {
                let step = utf8Step(s, end)
                if step == 2, byte == 0xC2, s[1] < 0xA0 {
                    // U+0080 to U+009F: one byte's controls of old, which some terminals obey in UTF-8 too.
                    d = hexEscape(s[1], to: d)
                    s += 2
                } else if step > 0 {
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
            } else if byte == 0x09 {
                d[0] = byte
                d += 1
                s += 1
            } else if byte == 0x1B {
                let after = skipSequence(s, end)
                if toTerminal, isColour(s, after) {
                    d.update(from: s, count: after - s)
                    d += after - s
                    sawColour = true
                }
                s = after
            } else {
                d = hexEscape(byte, to: d)
                s += 1
            }
        }
    }
    return sawColour ? copy("\u{1B}[0m", to: d) : d
}

/// Writes a control character as `\x07`.
private func hexEscape(_ byte: UInt8, to d: MutableBytes) -> MutableBytes {
    (d[0], d[1], d[2], d[3]) = (0x5C, 0x78, hexDigit(byte >> 4), hexDigit(byte & 15))
    return d + 4
}

/// Whether a whole sequence selects colours and the like: CSI, digits with `;` or `:`, and `m`.
private func isColour(_ p: Bytes, _ end: Bytes) -> Bool {
    guard end - p >= 3, p[1] == 0x5B, end[-1] == 0x6D else { return false }
    var s = p + 2
    while s < end - 1, s[0] >= 0x30, s[0] <= 0x3B { s += 1 }
    return s == end - 1
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
