//  Times.swift
//  Wall times and durations as answers write them; text of a worker made safe for a terminal.
//  Read after JSON.swift.

import Glibc
import PanelindCore

/// Writing of times, all from nanoseconds since 1970.
public enum Times {
    /// RFC 3339 in UTC with milliseconds: `2026-01-01T12:00:00.123Z`.
    public static func utc(_ nanoseconds: Int64) -> String {
        var seconds = time_t(nanoseconds / 1_000_000_000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        return "\(two(parts.tm_year + 1900, 4))-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(milliseconds(nanoseconds))Z"
    }

    /// The local time of day, `12:00:00.123`; with the date before it where that is not today's.
    static func local(_ nanoseconds: Int64, now: Int64) -> String {
        let parts = self.parts(nanoseconds)
        let today = self.parts(now)
        let time = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(milliseconds(nanoseconds))"
        guard parts.tm_year != today.tm_year || parts.tm_yday != today.tm_yday else { return time }
        return "\(two(parts.tm_year + 1900, 4))-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) \(time)"
    }

    /// For people, two units at most: `850ms`, `3.2s`, `2m 5s`, `3h 4m`, `2d 1h`.
    static func span(_ duration: Duration) -> String {
        let n = max(0, duration.nanoseconds)
        let seconds = n / 1_000_000_000
        if n < 1_000_000_000 { return "\(n / 1_000_000)ms" }
        if seconds < 60 {
            let tenths = n / 100_000_000
            return tenths % 10 == 0 ? "\(seconds)s" : "\(tenths / 10).\(tenths % 10)s"
        }
        if seconds < 3600 { return seconds % 60 == 0 ? "\(seconds / 60)m" : "\(seconds / 60)m \(seconds % 60)s" }
        if seconds < 86400 { return "\(seconds / 3600)h \(seconds % 3600 / 60)m" }
        return "\(seconds / 86400)d \(seconds % 86400 / 3600)h"
    }

    /// Bytes for people: `512 MB`.
    static func size(_ bytes: Int64) -> String {
        let tenths = bytes / 100_000_000
        return bytes >= 1_000_000_000 ? "\(tenths / 10).\(tenths % 10) GB" : "\(bytes / 1_000_000) MB"
    }

    private static func parts(_ nanoseconds: Int64) -> tm {
        var seconds = time_t(nanoseconds / 1_000_000_000)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return parts
    }

    private static func milliseconds(_ nanoseconds: Int64) -> String {
        two(Int32(truncatingIfNeeded: nanoseconds % 1_000_000_000 / 1_000_000), 3)
    }

    private static func two(_ number: Int32, _ width: Int = 2) -> String {
        let digits = "\(number)"
        return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
    }
}

extension String {
    /// Without escape sequences and control characters but for the tab: what a worker prints shall not steer the
    /// terminal of the one who reads it (ECMA-48).
    var withoutControls: String {
        guard unicodeScalars.contains(where: { Self.isControl($0) }) else { return self }
        var result = String.UnicodeScalarView()
        var scalars = unicodeScalars.makeIterator()
        while let scalar = scalars.next() {
            guard Self.isControl(scalar) else {
                result.append(scalar)
                continue
            }
            // CSI ends with a byte from @ to ~; OSC and its like with BEL or ESC; others are two characters long.
            guard scalar == "\u{1B}", let kind = scalars.next() else { continue }
            switch kind {
            case "[": while let next = scalars.next(), !("@"..."~").contains(next) {}
            case "]", "P", "X", "^", "_":
                while let next = scalars.next(), next != "\u{07}", next != "\u{1B}" {}
            default: break
            }
        }
        return String(result)
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        (scalar.value < 0x20 && scalar != "\t") || (0x7F...0x9F).contains(scalar.value)
    }
}
