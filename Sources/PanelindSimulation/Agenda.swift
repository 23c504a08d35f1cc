//  Agenda.swift
//  What is going to happen in a simulated world, earliest first; what was planned first wins a tie.
//  Read Happening in World.swift beside it.

import PanelindCore

/// A queue ordered by time, then by the order of planning: the same calls give the same order on every machine.
struct Agenda<Item> {
    private struct Entry {
        var at: Instant
        var order: Int
        var slot: Int

        func precedes(_ other: Entry) -> Bool { at < other.at || (at == other.at && order < other.order) }
    }

    /// A binary heap of small entries; the items, which may be large, stay in their slots.
    private var heap: [Entry] = []
    private var items: [Item?] = []
    private var freeSlots: [Int] = []
    private var planned = 0

    /// When the next item is due, or nil if there is none.
    var next: Instant? { heap.first?.at }

    mutating func plan(_ item: Item, at instant: Instant) {
        planned += 1
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
            items[slot] = item
        } else {
            slot = items.count
            items.append(item)
        }
        heap.append(Entry(at: instant, order: planned, slot: slot))
        siftUp(heap.count - 1)
    }

    /// Takes the next item out.
    mutating func take() -> (item: Item, at: Instant)? {
        guard let first = heap.first, let item = items[first.slot].take() else { return nil }
        freeSlots.append(first.slot)
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            siftDown(0)
        }
        return (item, first.at)
    }

    private mutating func siftUp(_ start: Int) {
        var child = start
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].precedes(heap[parent]) else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func siftDown(_ start: Int) {
        var parent = start
        while true {
            var least = parent
            var child = 2 * parent + 1
            while child < heap.count, child <= 2 * parent + 2 {
                if heap[child].precedes(heap[least]) { least = child }
                child += 1
            }
            guard least != parent else { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
