//  HTTPDate.swift
//  The present time as an IMF-fixdate (RFC 9110 section 5.6.7), written at most once a second.
//  Needed by answers that come without a Date.

import Glibc

/// The text of the present second.
struct HTTPDate {
    private var second = -1
    private var text: [UInt8] = []

    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    mutating func now() -> [UInt8] {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        if time.tv_sec != second {
            second = time.tv_sec
            text = Self.text(second)
        }
        return text
    }

    /// The text of a second since 1970.
    static func text(_ second: Int) -> [UInt8] {
        var time = second
        var parts = tm()
        guard gmtime_r(&time, &parts) != nil else { return [] }
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let date = "\(days[Int(parts.tm_wday)]), \(two(parts.tm_mday)) \(months[Int(parts.tm_mon)])"
        let clock = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        return Array("\(date) \(Int(parts.tm_year) + 1900) \(clock) GMT".utf8)
    }
}
