//  Corpus.swift
//  The kept inputs: one file each, a folder for each target, in the order of their names.
//  Tests/Corpora has them; README.md there says how they grow. Read Target.swift first.

import Glibc

/// The inputs kept for the targets.
public enum Corpus {
    /// The files in a folder, by name; none where there is no folder.
    public static func files(in folder: String) -> [(name: String, bytes: [UInt8])] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted().compactMap { name in read(folder + "/" + name).map { (name, $0) } }
    }

    /// The bytes of a file, at most 1 MiB.
    public static func read(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 65536)
        while bytes.count < 1 << 20 {
            let count = Glibc.read(descriptor, &block, block.count)
            if count < 0 { return nil }
            if count == 0 { break }
            bytes += block[..<count]
        }
        return bytes
    }

    /// Writes a file; false where that does not work.
    public static func write(_ bytes: [UInt8], to path: String) -> Bool {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return Glibc.write(descriptor, bytes, bytes.count) == bytes.count
    }
}

/// Where the seed under way stands for whoever finds this process dead or hanging: a page shared with a file.
public final class SeedNote {
    private let page: UnsafeMutableRawPointer

    /// Makes the file; nil where that does not work.
    public init?(_ path: String) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        guard ftruncate(descriptor, 8) == 0,
            let page = mmap(nil, 8, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), page != MAP_FAILED
        else { return nil }
        self.page = page
    }

    deinit { munmap(page, 8) }

    /// This seed is tried now.
    public func note(_ seed: UInt64) { page.storeBytes(of: seed, as: UInt64.self) }
}
