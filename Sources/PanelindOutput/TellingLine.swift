//  TellingLine.swift
//  Which of a dead worker's last lines says why: the one to put into the first sentence a person reads.
//  Read after LineSeverity.swift.

/// Words that an error's own line has, in the order of how much they tell.
private let telling = [
    "Error: ", "Exception: ", "Error loading", "panic: ", "fatal: ", "error: ", "Error", "Exception", "error",
    "cannot ",
    "not found", "No such",
]

/// The last line with the most telling word; nil where there is none.
///
/// Without leading and trailing blanks, at most 200 characters.
/// - Parameter orLast: without such a word, the last line that is not empty: of a worker that never served, it is the
///   best guess; of one that served it is a mere access line.
func tellingLine(_ lines: [String], orLast: Bool) -> String? {
    // The end of the output is where the reason stands; what is far above was survived.
    let last = lines.suffix(20)
    let found =
        telling.lazy.compactMap { word in last.last { contains($0, word) } }.first
        ?? (orLast ? last : []).last { !$0.utf8.allSatisfy { $0 == 0x20 || $0 == 0x09 } }
    guard let found else { return nil }
    var text = Substring(found)
    while text.first == " " || text.first == "\t" { text.removeFirst() }
    while text.last == " " || text.last == "\t" { text.removeLast() }
    return text.isEmpty ? nil : String(text.prefix(200))
}

private func contains(_ line: String, _ word: String) -> Bool {
    let line = Array(line.utf8), word = Array(word.utf8)
    guard line.count >= word.count else { return false }
    return (0...line.count - word.count).contains { line[$0..<$0 + word.count].elementsEqual(word) }
}
