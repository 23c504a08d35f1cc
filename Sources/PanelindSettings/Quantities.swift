//  Quantities.swift
//  How durations, sizes and numbers are written, exactly and without rounding.
//  `250ms`, `1m30s`, `32MiB`; a bare number is no duration. Read after Problem.swift.

import PanelindCore

/// The longest duration a setting may say; sums of a few still fit an `Instant`.
let longestDuration: Duration = .seconds(366 * 24 * 3600)

/// The duration that a text such as `250ms`, `8s` or `1m30s` writes; nil for anything else.
public func duration(from text: String) -> Duration? { try? parseDuration(text) }

/// Reads `250ms`, `8s`, `1.5s`, `1m30s`, `2h`.
func parseDuration(_ text: String) throws(BadValue) -> Duration {
    let hint = "write a duration such as 250ms, 8s or 1m30s"
    if text.isEmpty { throw BadValue("no value; \(hint)") }
    if text.hasPrefix("-") { throw BadValue("a negative duration; \(hint)") }
    var rest = Substring(text)
    var total: Int64 = 0
    var lastUnit: Int64 = .max
    while !rest.isEmpty {
        let number = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        rest = rest.dropFirst(number.count)
        let unit = rest.prefix { $0.isASCII && $0.isLetter }
        rest = rest.dropFirst(unit.count)
        guard !number.isEmpty else { throw BadValue("not a duration; \(hint)") }
        if unit.isEmpty {
            let whole = number == Substring(text) && !number.contains(".")
            throw BadValue("a number without a unit; write \(whole ? "\(number)s" : "\(number)s, 8s or 250ms")")
        }
        let scale: Int64
        switch unit {
        case "ms": scale = 1_000_000
        case "s": scale = 1_000_000_000
        case "m": scale = 60_000_000_000
        case "h": scale = 3_600_000_000_000
        default: throw BadValue("unknown unit \(shortened(String(unit))); \(hint)")
        }
        guard scale < lastUnit else { throw BadValue("units out of order; \(hint)") }
        lastUnit = scale
        guard let part = nanoseconds(number, scale: scale) else {
            throw BadValue("not a number, or beyond a year; \(hint)")
        }
        total += part
    }
    guard total <= longestDuration.nanoseconds else { throw BadValue("longer than a year; \(hint)") }
    return .nanoseconds(total)
}

/// `1.5` of a unit, in nanoseconds; nil for bad digits and for more than a year.
private func nanoseconds(_ number: Substring, scale: Int64) -> Int64? {
    let parts = number.split(separator: ".", omittingEmptySubsequences: false)
    let most = longestDuration.nanoseconds / scale
    guard parts.count <= 2, let whole = Int64(parts[0]), whole <= most else { return nil }
    guard parts.count == 2 else { return whole * scale }
    guard (1...9).contains(parts[1].count), let fraction = Int64(parts[1]) else { return nil }
    let tens = (0..<parts[1].count).reduce(Int64(1)) { value, _ in value * 10 }
    // Quotient and remainder apart: an hour in nanoseconds times nine digits would not fit.
    return whole * scale + scale / tens * fraction + scale % tens * fraction / tens
}

/// Reads `32MiB`, `64KiB`, `1GiB`, `512B` and plain bytes.
func parseSize(_ text: String) throws(BadValue) -> Int {
    let hint = "write a size such as 64KiB, 32MiB or 1GiB"
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard let number = Int(digits) else {
        throw BadValue(text.hasPrefix("-") ? "a negative size; \(hint)" : "not a size; \(hint)")
    }
    let scale: Int
    switch text.dropFirst(digits.count) {
    case "", "B": scale = 1
    case "KiB": scale = 1 << 10
    case "MiB": scale = 1 << 20
    case "GiB": scale = 1 << 30
    case let unit: throw BadValue("unknown unit \(shortened(String(unit))); \(hint)")
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: scale)
    guard !overflow, bytes <= 1 << 50 else { throw BadValue("too large; \(hint)") }
    return bytes
}

/// As settings write a size: the largest unit that leaves it whole.
func sizeText(_ bytes: Int) -> String {
    for (unit, scale) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    where bytes >= scale && bytes % scale == 0 {
        return "\(bytes / scale)\(unit)"
    }
    return "\(bytes)"
}

/// Reads a whole number within a range.
func parseInteger(_ text: String, _ range: ClosedRange<Int>) throws(BadValue) -> Int {
    guard let number = Int(text) else { throw BadValue("not a whole number; write \(rangeText(range))") }
    guard range.contains(number) else { throw BadValue("out of range; write \(rangeText(range))") }
    return number
}

private func rangeText(_ range: ClosedRange<Int>) -> String {
    range.upperBound >= Int(Int32.max)
        ? "a number from \(range.lowerBound) up" : "a number from \(range.lowerBound) to \(range.upperBound)"
}

/// Reads a decimal number within a range; no exponent, infinity or NaN.
func parseDecimal(_ text: String, _ range: ClosedRange<Double>) throws(BadValue) -> Double {
    let what = "write a number from \(decimalText(range.lowerBound)) to \(decimalText(range.upperBound))"
    let plain = text.allSatisfy { $0.isASCII && ($0.isNumber || $0 == "." || $0 == "-") }
    guard plain, let number = Double(text) else { throw BadValue("not a number; \(what)") }
    guard range.contains(number) else { throw BadValue("out of range; \(what)") }
    return number
}

/// `2` for 2.0, `0.2` for 0.2.
func decimalText(_ number: Double) -> String {
    let whole = number.rounded()
    return whole == number && abs(whole) < 1e15 ? "\(Int(whole))" : "\(number)"
}

/// The name of an environment variable that placeholders can name (POSIX, XBD 8.1).
func isVariableName(_ text: some StringProtocol) -> Bool {
    guard let first = text.utf8.first, !(0x30...0x39).contains(first) else { return false }
    return text.utf8.allSatisfy(isNameByte)
}

/// Letters, digits and `_`.
func isNameByte(_ byte: UInt8) -> Bool {
    (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x5F
}
