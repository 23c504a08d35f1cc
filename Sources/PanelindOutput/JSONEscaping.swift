//  JSONEscaping.swift
//  Any bytes as the inside of a JSON string (RFC 8259 section 7), copied sixteen at a time.
//  The hottest loop of the program: no allocation, no bounds checks. Read after UTF8.swift.

/// The room that `escapeJSON` may use for so many bytes: `\u0000` for each, and one whole store.
@inline(__always)
func escapedRoom(_ count: Int) -> Int { count * 6 + 16 }

/// Two words of eight bytes: the width in which plain text is copied.
typealias Chunk = (UInt64, UInt64)

/// The index of the first byte of sixteen that cannot be copied as it is, or 16.
///
/// Word arithmetic: comparisons of Swift's SIMD types are loops here, even optimised. A borrow can only mark bytes
/// behind one that is marked rightly, so the first mark is exact (little-endian).
@inline(__always)
func firstSpecial(_ chunk: Chunk, withDelete: Bool = false) -> Int {
    let a = specials(chunk.0, withDelete)
    let b = specials(chunk.1, withDelete)
    if a | b == 0 { return 16 }
    return a != 0 ? a.trailingZeroBitCount >> 3 : 8 + b.trailingZeroBitCount >> 3
}

/// Marks the top bit of bytes below a space, above ASCII, `"` and `\`; of DEL, which JSON allows, where it is wanted.
@inline(__always)
private func specials(_ w: UInt64, _ withDelete: Bool) -> UInt64 {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let control = w &- 0x2020_2020_2020_2020
    let quote = (w ^ 0x2222_2222_2222_2222) &- ones
    let backslash = (w ^ 0x5C5C_5C5C_5C5C_5C5C) &- ones
    let delete = withDelete ? (w ^ 0x7F7F_7F7F_7F7F_7F7F) &- ones : 0
    return (w | control | quote | backslash | delete) & 0x8080_8080_8080_8080
}

/// Sixteen bytes from `p`.
@inline(__always)
func loadChunk(_ p: Bytes) -> Chunk {
    let raw = UnsafeRawPointer(p)
    return (
        UInt64(littleEndian: raw.loadUnaligned(as: UInt64.self)),
        UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    )
}

/// Sixteen bytes to `p`.
@inline(__always)
func storeChunk(_ chunk: Chunk, _ p: MutableBytes) {
    let raw = UnsafeMutableRawPointer(p)
    raw.storeBytes(of: chunk.0.littleEndian, as: UInt64.self)
    raw.storeBytes(of: chunk.1.littleEndian, toByteOffset: 8, as: UInt64.self)
}

/// Writes the bytes as the inside of a JSON string and returns the end of what was written.
///
/// Invalid UTF-8 becomes U+FFFD. `to` must have `escapedRoom(count)` bytes.
func escapeJSON(_ from: Bytes, _ count: Int, to: MutableBytes) -> MutableBytes {
    var s = from
    var d = to
    let end = from + count
    while s < end {
        while end - s >= 16 {
            let chunk = loadChunk(s)
            storeChunk(chunk, d)
            let clean = firstSpecial(chunk)
            s += clean
            d += clean
            if clean < 16 { break }
        }
        // Either at a byte that needs care, or near the end: byte by byte until a clean stretch may begin.
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
                continue
            }
            s += 1
            if byte >= 0x20, byte != 0x22, byte != 0x5C {
                d[0] = byte
                d += 1
                if end - s >= 16 { break }
                continue
            }
            d[0] = 0x5C
            switch byte {
            case 0x22, 0x5C: d[1] = byte
            case 0x08: d[1] = 0x62
            case 0x09: d[1] = 0x74
            case 0x0A: d[1] = 0x6E
            case 0x0C: d[1] = 0x66
            case 0x0D: d[1] = 0x72
            default:
                (d[1], d[2], d[3]) = (0x75, 0x30, 0x30)
                d[4] = 0x30 + byte >> 4
                d[5] = hexDigit(byte & 15)
                d += 4
            }
            d += 2
        }
    }
    return d
}

/// The lower-case hexadecimal digit of 0...15.
@inline(__always)
func hexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 + nibble : 0x57 + nibble }

/// Copies a constant and returns the end of what was written.
@inline(__always)
func copy(_ text: StaticString, to: MutableBytes) -> MutableBytes {
    to.update(from: text.utf8Start, count: text.utf8CodeUnitCount)
    return to + text.utf8CodeUnitCount
}
