//  UTF8.swift
//  Which bytes are a character: validity and boundaries of UTF-8, without String.
//  The table is 3-7 of the Unicode Standard. Read before JSONEscaping.swift.

typealias Bytes = UnsafePointer<UInt8>
typealias MutableBytes = UnsafeMutablePointer<UInt8>

/// The character at `p`, which is not ASCII.
///
/// Positive: its length. Negative: the length of the invalid part, which one U+FFFD stands for
/// (the "maximal subpart" practice, as `String(decoding:as:)` does).
@inline(__always)
func utf8Step(_ p: Bytes, _ end: Bytes) -> Int {
    let lead = p[0]
    var low: UInt8 = 0x80
    var high: UInt8 = 0xBF
    let length: Int
    switch lead {
    case 0xC2...0xDF: length = 2
    case 0xE0: (length, low) = (3, 0xA0)
    case 0xED: (length, high) = (3, 0x9F)
    case 0xE1...0xEF: length = 3
    case 0xF0: (length, low) = (4, 0x90)
    case 0xF1...0xF3: length = 4
    case 0xF4: (length, high) = (4, 0x8F)
    default: return -1
    }
    var i = 1
    while i < length {
        guard p + i < end, p[i] >= low, p[i] <= high else { return -i }
        (low, high) = (0x80, 0xBF)
        i += 1
    }
    return length
}

/// Where to cut a line so that no character is torn: `limit`, or up to three bytes less.
func utf8Cut(_ p: Bytes, _ limit: Int) -> Int {
    var at = limit
    while at > 0, limit - at < 4 {
        if p[at] & 0xC0 != 0x80 { return at }
        at -= 1
    }
    return limit
}

/// Whether the bytes at `p` are this ASCII text.
///
/// `count` is how many may be read.
@inline(__always)
func starts(_ p: Bytes, _ count: Int, with text: StaticString) -> Bool {
    let length = text.utf8CodeUnitCount
    if count < length { return false }
    let t = text.utf8Start
    var i = 0
    while i < length {
        if p[i] != t[i] { return false }
        i += 1
    }
    return true
}

/// Whether the ASCII text `needle`, in lower case, occurs in the bytes, in any case.
func contains(_ p: Bytes, _ count: Int, _ needle: StaticString) -> Bool {
    let length = needle.utf8CodeUnitCount
    let t = needle.utf8Start
    guard length > 0, count >= length else { return false }
    var at = 0
    while at <= count - length {
        var i = 0
        while i < length {
            let byte = p[at + i]
            if (byte &- 65 < 26 ? byte | 0x20 : byte) != t[i] { break }
            i += 1
        }
        if i == length { return true }
        at += 1
    }
    return false
}
