//  Expansion.swift
//  What `${NAME}`, `${NAME:-default}`, `$$`, `{{`, `}}` and the placeholders `{socket}`, `{port}`, `{fd}` mean.
//  Every other `$` or brace is literal; nothing passes through a shell. Read after Problem.swift.

/// One argument of `worker.command`, to be filled when a worker starts.
public struct CommandArgument: Hashable, Sendable, CustomStringConvertible {
    /// A stretch of text, or what stands for a value that exists only at the start.
    public enum Piece: Hashable, Sendable {
        case text(String)
        /// The path of the private unix socket: `{socket}`.
        case socket
        /// The private loopback port: `{port}`.
        case port
        /// The number of the inherited listening socket: `{fd}`.
        case descriptor
    }

    /// Never empty stretches of text; no pieces at all for an empty argument.
    public var pieces: [Piece]

    /// Makes an argument of pieces.
    public init(_ pieces: [Piece]) { self.pieces = pieces }

    /// The argument as the worker gets it.
    public func filled(socket: String, port: Int, descriptor: Int32) -> String {
        pieces.map { piece in
            switch piece {
            case .text(let text): text
            case .socket: socket
            case .port: "\(port)"
            case .descriptor: "\(descriptor)"
            }
        }.joined()
    }

    /// With the placeholders as they are written.
    public var description: String {
        pieces.map { piece in
            switch piece {
            case .text(let text): text
            case .socket: "{socket}"
            case .port: "{port}"
            case .descriptor: "{fd}"
            }
        }.joined()
    }

    /// Its text where it has no placeholder.
    public var literal: String? {
        var text = ""
        for piece in pieces {
            guard case .text(let part) = piece else { return nil }
            text += part
        }
        return text
    }
}

/// What a name stands for.
enum Lookup {
    case text(String)
    /// Known only when a worker starts.
    case piece(CommandArgument.Piece)
    /// Not set.
    case unset
    /// Must not be used here; the clause says why and what instead.
    case refused(String)
}

/// Expands text into pieces; placeholders count only where `placeholders` says so.
func expand(
    _ text: String, placeholders: Bool, _ lookup: (String) -> Lookup
) throws(BadValue) -> CommandArgument {
    var pieces: [CommandArgument.Piece] = []
    var run = ""
    func flush() {
        if !run.isEmpty { pieces.append(.text(run)) }
        run = ""
    }
    var rest = Substring(text)
    while let character = rest.first {
        if rest.hasPrefix("$$") {
            run += "$"
            rest = rest.dropFirst(2)
        } else if rest.hasPrefix("{{") {
            run += "{"
            rest = rest.dropFirst(2)
        } else if rest.hasPrefix("}}") {
            run += "}"
            rest = rest.dropFirst(2)
        } else if let reference = Reference(rest) {
            rest = rest.dropFirst(reference.length)
            for piece in try reference.resolve(lookup) {
                if case .text(let text) = piece {
                    run += text
                } else {
                    flush()
                    pieces.append(piece)
                }
            }
        } else if placeholders, let (piece, length) = placeholder(rest) {
            flush()
            pieces.append(piece)
            rest = rest.dropFirst(length)
        } else {
            run.append(character)
            rest = rest.dropFirst()
        }
    }
    flush()
    return CommandArgument(pieces)
}

private func placeholder(_ text: Substring) -> (CommandArgument.Piece, Int)? {
    if text.hasPrefix("{socket}") { return (.socket, 8) }
    if text.hasPrefix("{port}") { return (.port, 6) }
    if text.hasPrefix("{fd}") { return (.descriptor, 4) }
    return nil
}

/// `${NAME}` or `${NAME:-default}` at the start of a text.
private struct Reference {
    var name: String
    var fallback: String?
    /// In characters, braces included.
    var length: Int

    init?(_ text: Substring) {
        guard text.hasPrefix("${") else { return nil }
        let body = text.dropFirst(2)
        let name = body.prefix { $0 != "}" && $0 != ":" }
        guard isVariableName(name) else { return nil }
        let after = body.dropFirst(name.count)
        if after.first == "}" {
            self.name = String(name)
            length = 2 + name.count + 1
        } else if after.hasPrefix(":-"), let end = Self.end(of: after.dropFirst(2)) {
            self.name = String(name)
            fallback = String(after.dropFirst(2).prefix(end))
            length = 2 + name.count + 2 + end + 1
        } else {
            return nil
        }
    }

    /// How many characters lie before the brace that closes the default; `${…}` may nest in it.
    private static func end(of text: Substring) -> Int? {
        var depth = 0
        var previous: Character = " "
        for (index, character) in text.enumerated() {
            if character == "}" {
                if depth == 0 { return index }
                depth -= 1
            } else if character == "{", previous == "$" {
                depth += 1
                guard depth <= 8 else { return nil }
            }
            previous = character
        }
        return nil
    }

    /// An empty variable takes the default, as in a shell; without one it stays empty.
    func resolve(_ lookup: (String) -> Lookup) throws(BadValue) -> [CommandArgument.Piece] {
        switch lookup(name) {
        case .text(let value) where !value.isEmpty || fallback == nil: return [.text(value)]
        case .piece(let piece): return [piece]
        case .refused(let why): throw BadValue(why)
        case .text, .unset:
            guard let fallback else {
                throw BadValue("\(name) is not set; set it, or write ${\(name):-default}")
            }
            return try expand(fallback, placeholders: false, lookup).pieces
        }
    }
}
