//  Stamp.swift
//  Times as records write them: RFC 3339 in UTC with nanoseconds, or the local time of day for a terminal.
//  Lines of one read differ by a nanosecond each: a sorted view keeps their order. Read before RecordSink.swift.

import Glibc

/// CLOCK_REALTIME in nanoseconds since 1970.
func wallClock() -> Int64 {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
}

/// CLOCK_MONOTONIC in nanoseconds.
func monotonicClock() -> Int64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
}

/// The time of the current line, kept as text that is changed in place.
struct Stamp: ~Copyable {
    /// Bytes of `2026-01-01T12:00:00.123456789Z`.
    static let length = 30
    /// Bytes of `12:00:00.123`.
    static let localLength = 12

    let text: MutableBytes
    let local: MutableBytes
    private(set) var nanoseconds: Int64 = 0
    private var second: Int64 = .min
    private var localSecond: Int64 = .min

    init() {
        text = .allocate(capacity: Self.length)
        local = .allocate(capacity: Self.localLength)
        text.initialize(repeating: 0x30, count: Self.length)
        local.initialize(repeating: 0x30, count: Self.localLength)
        set(0)
    }

    deinit {
        text.deallocate()
        local.deallocate()
    }

    /// Moves to this time; never back by less than a second, so that neighbours keep their order.
    mutating func advance(to time: Int64) {
        set(time > nanoseconds || nanoseconds - time > 1_000_000_000 ? time : nanoseconds + 1)
    }

    /// Moves to exactly this time.
    mutating func set(_ time: Int64) {
        nanoseconds = time
        let whole = time >= 0 ? time / 1_000_000_000 : 0
        if whole != second {
            second = whole
            writeDate(whole)
        }
        digits(text + 20, 9, time >= 0 ? time % 1_000_000_000 : 0)
    }

    /// Moves by a nanosecond: changes the last digit, seldom more.
    @inline(__always)
    mutating func bump() {
        nanoseconds += 1
        var i = 28
        while i >= 20 {
            if text[i] != 0x39 {
                text[i] += 1
                return
            }
            text[i] = 0x30
            i -= 1
        }
        set(nanoseconds)
    }

    /// Brings `local` to the current time, in the zone of TZ or of the machine.
    mutating func updateLocal() {
        let whole = nanoseconds / 1_000_000_000
        if whole != localSecond {
            localSecond = whole
            var seconds = time_t(whole)
            var parts = tm()
            localtime_r(&seconds, &parts)
            digits(local, 2, Int64(parts.tm_hour))
            local[2] = 0x3A
            digits(local + 3, 2, Int64(parts.tm_min))
            local[5] = 0x3A
            digits(local + 6, 2, Int64(parts.tm_sec))
            local[8] = 0x2E
        }
        digits(local + 9, 3, nanoseconds % 1_000_000_000 / 1_000_000)
    }

    /// Days to a date by Howard Hinnant's `civil_from_days`; for years 1970...9999.
    private func writeDate(_ seconds: Int64) {
        let days = seconds / 86400 + 719_468
        let era = days / 146_097
        let dayOfEra = days - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        digits(text, 4, yearOfEra + era * 400 + (month <= 2 ? 1 : 0))
        text[4] = 0x2D
        digits(text + 5, 2, month)
        text[7] = 0x2D
        digits(text + 8, 2, dayOfYear - (153 * shifted + 2) / 5 + 1)
        text[10] = 0x54
        digits(text + 11, 2, seconds % 86400 / 3600)
        text[13] = 0x3A
        digits(text + 14, 2, seconds % 3600 / 60)
        text[16] = 0x3A
        digits(text + 17, 2, seconds % 60)
        text[19] = 0x2E
        text[29] = 0x5A
    }

    private func digits(_ p: MutableBytes, _ count: Int, _ value: Int64) {
        var rest = UInt64(bitPattern: value)
        var i = count - 1
        while i >= 0 {
            p[i] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
            i -= 1
        }
    }
}
