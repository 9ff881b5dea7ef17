//! From a slot to its timer: an array in groups, so that it never moves as a whole and slots
//! without timers take next to nothing.

const GROUP: usize = 64;
/// No timer has this index: it names a bucket.
const NONE: u32 = u32::MAX;

struct Group {
    timers: [u32; GROUP],
    /// How many of them are not [`NONE`].
    used: u32,
}

/// The index of each slot's timer.
#[derive(Default)]
pub(super) struct Slots {
    groups: Vec<Option<Box<Group>>>,
    /// Groups that are there.
    present: usize,
}

impl Slots {
    pub(super) fn get(&self, slot: u32) -> Option<u32> {
        let group = self.groups.get(slot as usize / GROUP)?.as_ref()?;
        let index = group.timers[slot as usize % GROUP];
        (index != NONE).then_some(index)
    }

    pub(super) fn put(&mut self, slot: u32, index: u32) {
        let group = slot as usize / GROUP;
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, || None);
        }
        let group = self.groups[group].get_or_insert_with(|| {
            self.present += 1;
            Box::new(Group {
                timers: [NONE; GROUP],
                used: 0,
            })
        });
        let timer = &mut group.timers[slot as usize % GROUP];
        group.used += u32::from(*timer == NONE);
        *timer = index;
    }

    pub(super) fn take(&mut self, slot: u32) {
        let Some(entry) = self.groups.get_mut(slot as usize / GROUP) else {
            return;
        };
        let Some(group) = entry else {
            return;
        };
        let timer = &mut group.timers[slot as usize % GROUP];
        group.used -= u32::from(*timer != NONE);
        *timer = NONE;
        if group.used == 0 {
            *entry = None;
            self.present -= 1;
        }
    }

    /// Heap bytes held.
    pub(super) fn bytes(&self) -> usize {
        let directory = self.groups.capacity() * size_of::<Option<Box<Group>>>();
        directory + self.present * size_of::<Group>()
    }
}

#[cfg(test)]
impl Slots {
    /// Every slot with its timer's index, after holding every count against what is there.
    pub(super) fn walk(&self) -> Vec<(u32, u32)> {
        let mut timers = Vec::new();
        let present = self.groups.iter().flatten().count();
        assert_eq!(self.present, present);
        for (base, group) in (0..).step_by(GROUP).zip(&self.groups) {
            let Some(group) = group else { continue };
            let slots = (base..).zip(group.timers);
            let before = timers.len();
            timers.extend(slots.filter(|&(_, index)| index != NONE));
            assert_eq!(group.used as usize, timers.len() - before);
            assert_ne!(group.used, 0, "a group without timers is freed");
        }
        timers
    }
}
