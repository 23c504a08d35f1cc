//  Children+Owners.swift
//  Whose a process is: ancestry, else recorded group or session, else its environment, else the oldest generation.
//  Read after Children.swift and ProcessTable.swift.

import Glibc
import PanelindCore

extension Children {
    /// The generation that a process belongs to, nil for strangers and for exec probes.
    public func owner(of pid: Int32) -> Generation? {
        var lookup = OwnerLookup(children: self, table: ProcessTable())
        guard case .worker(let generation)? = lookup.owner(of: pid) else { return nil }
        return generation
    }

    /// What one pass over /proc found.
    struct Look {
        /// The living processes of each generation.
        var owned: [Generation: [ProcessEntry]] = [:]
        /// Groups in which processes of different owners live.
        var mixedGroups: Set<Int32> = []
    }

    /// Looks at all processes and remembers whose they are; what is remembered of dead ones is dropped.
    func look() -> Look {
        var look = Look()
        var groups: [Int32: Owner?] = [:]
        var lookup = OwnerLookup(children: self, table: .read())
        for pid in Array(lookup.table.entries.keys) where pid != ownPID {
            let owner = lookup.owner(of: pid)
            // Read again by the lookup where its parent died meanwhile.
            guard let entry = lookup.table.entries[pid], entry.isAlive else { continue }
            if let other = groups[entry.group], other != owner { look.mixedGroups.insert(entry.group) }
            groups[entry.group] = .some(owner)
            if case .worker(let generation)? = owner { look.owned[generation, default: []].append(entry) }
        }
        known = [:]
        for generation in records.keys {
            let owned = look.owned[generation] ?? []
            for entry in owned where roles[entry.pid] == nil {
                known[entry.pid] = Known(start: entry.start, generation: generation)
            }
            records[generation]?.groups = Set(owned.map(\.group)).subtracting([ownGroup])
            records[generation]?.sessions = Set(owned.map(\.session)).subtracting([ownSession])
        }
        return look
    }

    /// Records what lives besides the leader that just died, before its number becomes free.
    func recordLeftovers() {
        guard features.processTable else { return }
        if adoptsOrphans, features.childrenFiles, let children = ProcessTable.ownChildren(), allAreDead(children) {
            // The restart path: one small file instead of the whole table.
            for generation in records.keys {
                records[generation]?.groups = []
                records[generation]?.sessions = []
            }
            known = [:]
            return
        }
        _ = look()
    }

    /// Whether these, just read as our children, are all dead, and nothing that they left was adopted since.
    private func allAreDead(_ children: [Int32]) -> Bool {
        for pid in children {
            if let entry = ProcessEntry(pid: pid), entry.isAlive { return false }
        }
        if children.isEmpty { return true }
        // The children of a zombie were adopted before it became one, but perhaps after the list was read.
        guard let after = ProcessTable.ownChildren() else { return false }
        return after.count == children.count && Set(after) == Set(children)
    }

    /// Proves without a look at all of /proc that nothing of a generation lives; false says nothing.
    ///
    /// Where orphans are adopted, a living process of a worker is below a leader or below a child that we did not
    /// start. So the kernel's word that there is no child is a proof, and so is a list of children that are all dead,
    /// or other owners'.
    func isProvenEmpty(_ generation: Generation) -> Bool {
        guard adoptsOrphans, records[generation] != nil else { return false }
        if panelindHasNoChild() { return true }
        guard features.childrenFiles, let children = ProcessTable.ownChildren() else { return false }
        var sawDead = false
        for pid in children {
            if let role = roles[pid], role.owner != .worker(generation) { continue }
            if let entry = ProcessEntry(pid: pid), entry.isAlive {
                guard roles[pid] == nil, let other = owner(of: pid), other != generation else { return false }
                continue
            }
            sawDead = true
        }
        guard sawDead else { return true }
        // The children of a zombie were adopted before it became one, but perhaps after the list was read.
        guard let after = ProcessTable.ownChildren() else { return false }
        return after.count == children.count && Set(after) == Set(children)
    }
}

/// Whose a process is, including a probe's, which no sweep may touch.
enum Owner: Hashable {
    case worker(Generation)
    case probe(Generation, id: Int)
}

/// Answers for one table; ancestors are judged once.
struct OwnerLookup {
    private let children: Children
    private(set) var table: ProcessTable
    private var judged: [Int32: Owner?] = [:]

    init(children: Children, table: ProcessTable) {
        self.children = children
        self.table = table
    }

    /// The owner of a process; lines that the table lacks are read when they are needed.
    mutating func owner(of pid: Int32) -> Owner? {
        if pid == children.ownPID || pid <= 0 { return nil }
        var chain: [ProcessEntry] = []
        var descends = false
        var answer: Owner?
        var current = pid
        // Pids cannot form a ring, but lines of different moments could.
        while chain.count < 4096 {
            if let earlier = judged[current] {
                answer = earlier
                return settle(chain, answer)
            }
            if let role = children.roles[current] {
                return settle(chain, role.owner)
            }
            guard var entry = table.entries[current] ?? table.refresh(current) else { break }
            // The parent died since its line was read: ask again who is the parent now.
            if entry.parent != children.ownPID, entry.parent > 1, children.roles[entry.parent] == nil,
                table.entries[entry.parent] == nil, table.refresh(entry.parent) == nil
            {
                guard let again = table.refresh(current) else { break }
                entry = again
            }
            if let known = children.known[current], known.start == entry.start {
                return settle(chain, .worker(known.generation))
            }
            chain.append(entry)
            if entry.parent == children.ownPID {
                descends = true
                break
            }
            if entry.parent <= 1 { break }
            current = entry.parent
        }
        // As adopter we are an ancestor of everything that is ours: a stranger cannot be mistaken for a descendant.
        if descends || !children.adoptsOrphans {
            answer = byGroup(chain) ?? byEnvironment(chain)
            if answer == nil, descends, children.adoptsOrphans, let oldest = children.records.keys.min() {
                answer = .worker(oldest)
            }
        }
        return settle(chain, answer)
    }

    private mutating func settle(_ chain: [ProcessEntry], _ answer: Owner?) -> Owner? {
        for entry in chain { judged[entry.pid] = .some(answer) }
        return answer
    }

    private func byGroup(_ chain: [ProcessEntry]) -> Owner? {
        for entry in chain where entry.start >= children.ownStart {
            // A probe's group bears the number of the probe, which we hold until it is reaped.
            if case .probe(let generation, let id)? = children.roles[entry.group] {
                return .probe(generation, id: id)
            }
            for (generation, record) in children.records {
                let led = record.leadsGroup && !record.leaderIsReaped && entry.group == record.leader
                if led || record.groups.contains(entry.group) || record.sessions.contains(entry.session) {
                    return .worker(generation)
                }
            }
        }
        return nil
    }

    private func byEnvironment(_ chain: [ProcessEntry]) -> Owner? {
        // What began before us cannot have our token, and reading it may be slow.
        for entry in chain where entry.start >= children.ownStart {
            guard let value = ProcessTable.environment(of: entry.pid, Children.environmentName) else { continue }
            let parts = value.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count >= 2, parts[1] == children.token, let number = Int(parts[0]) else { continue }
            let generation = Generation(number)
            if parts.count == 3, let id = Int(parts[2]),
                children.roles.values.contains(.probe(generation, id: id))
            {
                return .probe(generation, id: id)
            }
            // What a finished probe left behind is the worker's to clean up.
            if children.records[generation] != nil { return .worker(generation) }
        }
        return nil
    }
}

extension Role {
    var owner: Owner {
        switch self {
        case .worker(let generation): .worker(generation)
        case .probe(let generation, let id): .probe(generation, id: id)
        }
    }
}
