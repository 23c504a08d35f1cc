//  JSONValidity.swift
//  Whether a line is a JSON object as RFC 8259 has it, so that it may pass byte for byte.
//  One pass, no allocation, no recursion. Read after JSONEscaping.swift.

/// Deeper nesting than this is not looked into: such a line is wrapped as text.
let deepestJSON = 512

/// Whether the bytes are exactly one valid JSON object, white space around it allowed.
func isJSONObject(_ p: Bytes, _ count: Int) -> Bool {
    let end = p + count
    var s = skipSpace(p, end)
    guard s < end, s[0] == 0x7B else { return false }
    // One bit a level: set for an object.
    var kinds = InlineArray<8, UInt64>(repeating: 0)
    var depth = 0
    while true {
        // Here a value must begin at s.
        s = skipSpace(s, end)
        guard s < end else { return false }
        switch s[0] {
        case 0x7B, 0x5B:
            guard depth < deepestJSON else { return false }
            let isObject = s[0] == 0x7B
            let bit: UInt64 = 1 << UInt64(depth & 63)
            kinds[depth >> 6] = isObject ? kinds[depth >> 6] | bit : kinds[depth >> 6] & ~bit
            depth += 1
            s = skipSpace(s + 1, end)
            guard s < end else { return false }
            if s[0] == (isObject ? 0x7D : 0x5D) {
                s += 1
                depth -= 1
                break
            }
            if isObject {
                guard let value = skipKey(s, end) else { return false }
                s = value
            }
            continue
        case 0x22:
            guard let next = skipString(s + 1, end) else { return false }
            s = next
        case 0x74:
            guard starts(s, end - s, with: "true") else { return false }
            s += 4
        case 0x66:
            guard starts(s, end - s, with: "false") else { return false }
            s += 5
        case 0x6E:
            guard starts(s, end - s, with: "null") else { return false }
            s += 4
        default:
            guard let next = skipNumber(s, end) else { return false }
            s = next
        }
        // A value has ended: commas and closing brackets until another must begin.
        closing: while true {
            s = skipSpace(s, end)
            if depth == 0 { return s == end }
            guard s < end else { return false }
            let isObject = kinds[(depth - 1) >> 6] >> UInt64((depth - 1) & 63) & 1 == 1
            switch s[0] {
            case 0x2C:
                s = skipSpace(s + 1, end)
                if isObject {
                    guard s < end, let value = skipKey(s, end) else { return false }
                    s = value
                }
                break closing
            case 0x7D where isObject, 0x5D where !isObject:
                s += 1
                depth -= 1
            default:
                return false
            }
        }
    }
}

@inline(__always)
private func skipSpace(_ p: Bytes, _ end: Bytes) -> Bytes {
    var s = p
    while s < end, s[0] == 0x20 || s[0] == 0x09 || s[0] == 0x0D || s[0] == 0x0A { s += 1 }
    return s
}

/// Past a key and its colon; nil where there is none.
@inline(__always)
private func skipKey(_ p: Bytes, _ end: Bytes) -> Bytes? {
    guard p[0] == 0x22, let key = skipString(p + 1, end) else { return nil }
    let s = skipSpace(key, end)
    guard s < end, s[0] == 0x3A else { return nil }
    return s + 1
}

/// Past the closing quote of a string whose first byte is at `p`; nil where it is not valid.
private func skipString(_ p: Bytes, _ end: Bytes) -> Bytes? {
    var s = p
    while s < end {
        while end - s >= 16 {
            let clean = firstSpecial(loadChunk(s))
            s += clean
            if clean < 16 { break }
        }
        guard s < end else { return nil }
        let byte = s[0]
        switch byte {
        case 0x22:
            return s + 1
        case 0x5C:
            guard end - s >= 2 else { return nil }
            switch s[1] {
            case 0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74:
                s += 2
            case 0x75:
                guard end - s >= 6, isHex(s[2]), isHex(s[3]), isHex(s[4]), isHex(s[5]) else { return nil }
                s += 6
            default:
                return nil
            }
        case 0x80...:
            let step = utf8Step(s, end)
            guard step > 0 else { return nil }
            s += step
        case ..<0x20:
            return nil
        default:
            s += 1
        }
    }
    return nil
}

@inline(__always)
private func isHex(_ byte: UInt8) -> Bool { byte &- 48 < 10 || (byte | 0x20) &- 97 < 6 }

/// Past a number; nil where there is none.
private func skipNumber(_ p: Bytes, _ end: Bytes) -> Bytes? {
    var s = p
    if s < end, s[0] == 0x2D { s += 1 }
    guard s < end, s[0] &- 48 < 10 else { return nil }
    if s[0] == 0x30 {
        s += 1
    } else {
        s = skipDigits(s, end)
    }
    if s < end, s[0] == 0x2E {
        guard s + 1 < end, s[1] &- 48 < 10 else { return nil }
        s = skipDigits(s + 1, end)
    }
    if s < end, s[0] | 0x20 == 0x65 {
        s += 1
        if s < end, s[0] == 0x2B || s[0] == 0x2D { s += 1 }
        guard s < end, s[0] &- 48 < 10 else { return nil }
        s = skipDigits(s, end)
    }
    return s
}

@inline(__always)
private func skipDigits(_ p: Bytes, _ end: Bytes) -> Bytes {
    var s = p
    while s < end, s[0] &- 48 < 10 { s += 1 }
    return s
}
