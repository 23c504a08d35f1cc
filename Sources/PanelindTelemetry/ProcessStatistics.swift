//  ProcessStatistics.swift
//  The process_… metrics that every Prometheus client has, of panelind itself, from /proc/self at a scrape.
//  Where a number cannot be had (a sandbox without that file), its metric is left out. Read after Exposition.swift.

import Glibc

/// panelind's own use of the machine.
struct ProcessStatistics {
    var cpuSeconds: Double
    var residentBytes: Int?
    var virtualBytes: Int?
    var threads: Int?
    var startTime: Double?
    var openDescriptors: Int?
    var maxDescriptors: Int?

    /// Asks the kernel (getrusage(2), getrlimit(2), proc(5)).
    static func current() -> ProcessStatistics {
        var use = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &use)
        func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
        var statistics = ProcessStatistics(cpuSeconds: seconds(use.ru_utime) + seconds(use.ru_stime))
        if let text = read("/proc/self/stat") { statistics.take(stat: text) }
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            statistics.maxDescriptors = Int(clamping: limit.rlim_cur)
        }
        statistics.openDescriptors = countDescriptors()
        return statistics
    }

    /// The fields behind the name in parentheses, which may hold spaces itself (proc(5)).
    mutating func take(stat text: String) {
        guard let end = text.lastIndex(of: ")") else { return }
        let fields = text[text.index(after: end)...].split(separator: " ")
        // The first of them is field 3: num_threads 20, starttime 22, vsize 23, rss 24.
        guard fields.count > 21 else { return }
        threads = Int(fields[17])
        virtualBytes = Int(fields[20])
        residentBytes = Int(fields[21]).map { $0 * Int(sysconf(Int32(_SC_PAGESIZE))) }
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        if let start = Double(fields[19]), let boot = Self.bootTime(), ticks > 0 { startTime = boot + start / ticks }
    }

    /// `btime` of /proc/stat: seconds since 1970 at the machine's start.
    private static func bootTime() -> Double? {
        guard let text = read("/proc/stat", limit: 256 << 10) else { return nil }
        for line in text.split(separator: "\n") where line.hasPrefix("btime ") { return Double(line.dropFirst(6)) }
        return nil
    }

    private static func countDescriptors() -> Int? {
        guard let directory = opendir("/proc/self/fd") else { return nil }
        defer { closedir(directory) }
        // Without `.`, `..` and the directory's own.
        var count = -3
        while readdir(directory) != nil { count += 1 }
        return count
    }

    private static func read(_ path: String, limit: Int = 4096) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        while bytes.count < limit {
            let room = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
                count = max(0, Glibc.read(descriptor, buffer.baseAddress, 4096))
            }
            if room.isEmpty { break }
            bytes += room
        }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }

    func write(to page: inout Exposition) {
        page.single(
            "process_cpu_seconds_total", .counter, "User and system CPU time of panelind, in seconds.", cpuSeconds)
        if let residentBytes {
            page.single("process_resident_memory_bytes", .gauge, "Resident memory of panelind.", residentBytes)
        }
        if let virtualBytes {
            page.single("process_virtual_memory_bytes", .gauge, "Virtual memory of panelind.", virtualBytes)
        }
        if let threads { page.single("process_threads", .gauge, "Threads of panelind.", threads) }
        if let startTime {
            page.single(
                "process_start_time_seconds", .gauge, "When panelind started, in seconds since 1970.", startTime)
        }
        if let openDescriptors {
            page.single("process_open_fds", .gauge, "Open file descriptors of panelind.", openDescriptors)
        }
        if let maxDescriptors {
            page.single("process_max_fds", .gauge, "Most file descriptors that panelind may open.", maxDescriptors)
        }
    }
}
