//  Target.swift
//  What can be fuzzed: something that reads bytes from outside, a grammar for them, and a judge with a second opinion.
//  An input alone decides everything: what the judge chooses comes from dice that come from it. Read Material.swift first.

/// Something that reads what others wrote.
public protocol FuzzTarget: AnyObject {
    /// As the command line and the folder of its corpus name it.
    static var name: String { get }
    /// Words that matter to the reader: mutations put them in.
    static var words: [String] { get }
    init() throws
    /// An input out of a grammar, mostly a good one.
    func make(_ dice: inout Dice) -> [UInt8]
    /// What is wrong with what the reader made of it; nil where nothing is.
    func judge(_ input: [UInt8], _ dice: inout Dice) -> String?
    /// Told when all is done.
    var notes: [String] { get }
}

extension FuzzTarget {
    public var notes: [String] { [] }
}

/// Every target but the whole front, which World.swift has.
public enum FuzzTargets {
    /// In the order of their names.
    public static var all: [any FuzzTarget.Type] {
        [
            AnswerTarget.self, BodyTarget.self, ControlTarget.self, EntryTarget.self, LineTarget.self,
            NotifyTarget.self, ProcessTarget.self, RequestTarget.self, SettingsTarget.self, SidecarTarget.self,
            ValueTarget.self, VariableTarget.self,
        ]
    }
}

/// One target with the inputs kept for it.
public struct FuzzRun {
    private let target: any FuzzTarget
    private let corpus: [[UInt8]]
    private let words: [[UInt8]]
    private static let longest = 200_000

    /// Makes a run.
    public init(_ type: any FuzzTarget.Type, corpus: [[UInt8]]) throws {
        target = try type.init()
        words = type.words.map { Array($0.utf8) }
        self.corpus = corpus
    }

    public var notes: [String] { target.notes }

    /// The input of a seed: out of the grammar, or a kept one, each as it is or mutated, or two of them in one.
    public func input(seed: UInt64) -> [UInt8] {
        var dice = Dice(seed: seed)
        var bytes = base(&dice)
        if dice.once(in: 8) {
            let other = base(&dice)
            bytes = Array(bytes.prefix(dice.roll(bytes.count + 1))) + other.suffix(dice.roll(other.count + 1))
        }
        if !dice.once(in: 3) { bytes = dice.mutated(bytes, words) }
        return Array(bytes.prefix(Self.longest))
    }

    private func base(_ dice: inout Dice) -> [UInt8] {
        !corpus.isEmpty && dice.once(in: 3) ? dice.pick(corpus) : target.make(&dice)
    }

    /// Judges an input; the finding, or nil.
    public func judge(_ input: [UInt8]) -> String? {
        // FNV-1a: the same input always has the same dice.
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in input { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        var dice = Dice(seed: hash)
        return target.judge(input, &dice)
    }
}

extension Dice {
    /// The same with a few bytes changed, taken out, doubled or put in.
    mutating func mutated(_ bytes: [UInt8], _ words: [[UInt8]]) -> [UInt8] {
        var bytes = bytes
        for _ in 0...roll(3) {
            let at = roll(bytes.count + 1)
            let count = min(bytes.count - at, 1 + roll(once(in: 4) ? 40 : 3))
            switch roll(7) {
            case 0: if count > 0 { bytes[at] = UInt8(truncatingIfNeeded: roll(256)) }
            case 1:
                bytes.insert(pick([0x0d, 0x0a, 0x00, 0x20, 0x09, 0x3a, 0x2c, 0x80, 0xff, 0x7f, 0x0b, 0x1b]), at: at)
            case 2: bytes.removeSubrange(at..<(at + count))
            case 3: bytes.insert(contentsOf: Array(bytes[at..<(at + count)]), at: roll(bytes.count + 1))
            case 4: bytes.insert(contentsOf: pick(words), at: at)
            case 5: if count > 0 { bytes[at] ^= 1 << UInt8(roll(8)) }
            default: if once(in: 8) { bytes.removeLast(bytes.count - at) } else if count > 0 { bytes[at] ^= 0x20 }
            }
        }
        return bytes
    }

    /// Some of these, one behind the other.
    mutating func some(_ parts: [String], upTo most: Int, _ separator: String = "") -> String {
        (0..<roll(most + 1)).map { _ in pick(parts) }.joined(separator: separator)
    }
}

/// Bytes for a finding: at most 600, readable, on one line.
public func shown(_ bytes: [UInt8]) -> String { String(decoding: bytes.prefix(600), as: UTF8.self).debugDescription }
