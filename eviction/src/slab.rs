//! Doubly linked lists of slots: the links lie in one array indexed by slot, so that an entry is found, moved and removed
//! in constant time and a slot costs a few bytes.

/// No slot.
pub(crate) const END: u32 = u32::MAX;
/// In `prev` of a slot that is in no list.
const OUT: u32 = u32::MAX - 1;

/// A slot's neighbours, and what a policy keeps of it.
#[derive(Clone, Copy, Debug)]
struct Node<T> {
    prev: u32,
    next: u32,
    data: T,
}

/// The links of all lists of one policy. A slot is in one list at a time.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    nodes: Vec<Node<T>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            len: 0,
        }
    }
}

/// One list: its newest and its oldest slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self {
            head: END,
            tail: END,
        }
    }
}

impl List {
    pub(crate) fn is_empty(&self) -> bool {
        self.head == END
    }

    /// The newest slot.
    pub(crate) fn head(&self) -> Option<u32> {
        (self.head != END).then_some(self.head)
    }

    /// The oldest slot.
    pub(crate) fn tail(&self) -> Option<u32> {
        (self.tail != END).then_some(self.tail)
    }
}

/// Makes room for the element at `index`, a quarter at a time: a doubled array would stand half empty in every partition.
pub(crate) fn grow_to<T: Clone>(array: &mut Vec<T>, index: usize, empty: T) {
    if index >= array.len() {
        if index >= array.capacity() {
            let wanted = (index + 1).max(array.len() + array.len() / 4).max(8);
            array.reserve_exact(wanted - array.len());
        }
        array.resize(index + 1, empty);
    }
}

impl<T: Copy + Default> Slab<T> {
    /// Slots in any list.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Heap bytes held, exactly, as they were asked of the allocator.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<T>>()
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.nodes
            .get(slot as usize)
            .is_some_and(|node| node.prev != OUT)
    }

    /// What is kept of a slot that is in a list.
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.nodes
            .get(slot as usize)
            .filter(|node| node.prev != OUT)
            .map(|node| &node.data)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.nodes
            .get_mut(slot as usize)
            .filter(|node| node.prev != OUT)
            .map(|node| &mut node.data)
    }

    /// Adds a slot that is in no list, as the newest of `list`.
    pub(crate) fn insert(&mut self, list: &mut List, slot: u32, data: T) {
        debug_assert!(slot < OUT && !self.contains(slot));
        grow_to(
            &mut self.nodes,
            slot as usize,
            Node {
                prev: OUT,
                next: END,
                data: T::default(),
            },
        );
        self.nodes[slot as usize].data = data;
        self.len += 1;
        self.link(list, slot);
    }

    /// Takes a slot out of the list it is in.
    pub(crate) fn remove(&mut self, list: &mut List, slot: u32) {
        self.unlink(list, slot);
        self.nodes[slot as usize].prev = OUT;
        self.len -= 1;
        self.shrink();
    }

    /// Makes a slot the newest of its list.
    pub(crate) fn refresh(&mut self, list: &mut List, slot: u32) {
        if list.head != slot {
            self.unlink(list, slot);
            self.link(list, slot);
        }
    }

    /// Makes a slot of one list the newest of another.
    pub(crate) fn carry(&mut self, from: &mut List, to: &mut List, slot: u32) {
        self.unlink(from, slot);
        self.link(to, slot);
    }

    fn link(&mut self, list: &mut List, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        node.prev = END;
        node.next = list.head;
        match list.head {
            END => list.tail = slot,
            head => self.nodes[head as usize].prev = slot,
        }
        list.head = slot;
    }

    fn unlink(&mut self, list: &mut List, slot: u32) {
        let Node { prev, next, .. } = self.nodes[slot as usize];
        debug_assert!(prev != OUT, "slot {slot} is in a list");
        match prev {
            END => list.head = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            END => list.tail = prev,
            next => self.nodes[next as usize].prev = prev,
        }
    }

    /// An empty policy holds nothing: a store can have 65,536 partitions.
    fn shrink(&mut self) {
        if self.len == 0 {
            self.nodes = Vec::new();
        }
    }
}
