//! The members of one object laid over those of another, which are copied in runs where nothing changes.

use super::output::Output;
use super::string::plain;
use super::text::{Broken, Items};
use super::{PatchError, unreadable};
use std::borrow::Cow;

/// The members of a patch, found by name.
pub(super) struct Overlay<'p> {
    members: Vec<Member<'p>>,
    /// Positions in `members`, sorted by name: the first of each name, which has the value of the last.
    by_name: Vec<usize>,
}

struct Member<'p> {
    name: Cow<'p, [u8]>,
    quoted: &'p [u8],
    value: &'p [u8],
    /// A later duplicate, whose value the first has taken.
    superseded: bool,
}

/// A stored member that the patch names too.
struct Hit<'s> {
    member: usize,
    quoted: &'s [u8],
    start: usize,
    end: usize,
}

/// What becomes of a member whose value is `null` in the patch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    Stored,
    Removes,
}

impl<'p> Overlay<'p> {
    pub(super) fn read(patch: &'p [u8]) -> Result<Self, PatchError> {
        let mut members = Vec::new();
        for item in Items::of(patch).map_err(|Broken| unreadable())? {
            let item = item.map_err(|Broken| unreadable())?;
            members.push(Member {
                name: plain(item.name),
                quoted: item.name,
                value: item.value,
                superseded: false,
            });
        }
        let mut by_name: Vec<usize> = (0..members.len()).collect();
        by_name.sort_by(|a, b| members[*a].name.cmp(&members[*b].name));
        by_name.dedup_by(|later, first| {
            let same = members[*later].name == members[*first].name;
            if same {
                members[*first].value = members[*later].value;
                members[*later].superseded = true;
            }
            same
        });
        Ok(Self { members, by_name })
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let found = self
            .by_name
            .binary_search_by(|member| (*self.members[*member].name).cmp(name));
        found.ok().map(|position| self.by_name[position])
    }

    /// Writes the object that comes of laying this over `stored`, which is an object. `put` writes a member's value from
    /// the stored value, if there is one, and that of the patch.
    pub(super) fn write<'s>(
        &self,
        out: &mut Output,
        stored: &'s [u8],
        null: Null,
        mut put: impl FnMut(&mut Output, Option<&'s [u8]>, &'p [u8]) -> Result<(), PatchError>,
    ) -> Result<(), PatchError> {
        let mut before: Vec<Option<&[u8]>> = vec![None; self.members.len()];
        let mut hits = Vec::new();
        for item in Items::of(stored).map_err(|Broken| PatchError::NotJson)? {
            let item = item.map_err(|Broken| PatchError::NotJson)?;
            if let Some(member) = self.find(&plain(item.name)) {
                before[member] = Some(item.value);
                hits.push(Hit {
                    member,
                    quoted: item.name,
                    start: item.start,
                    end: item.end,
                });
            }
        }

        let mut written = vec![false; self.members.len()];
        let mut comma = Comma::default();
        let mut at = 1;
        out.push(b"{");
        for hit in hits {
            if at < hit.start {
                comma.push(out);
                // Without the comma that ends the run.
                out.push(&stored[at..hit.start - 1]);
            }
            // Over the comma or the brace that follows.
            at = hit.end + 1;
            let member = &self.members[hit.member];
            if !std::mem::replace(&mut written[hit.member], true) && member.stays(null) {
                comma.push(out);
                out.push(hit.quoted);
                out.push(b":");
                put(out, before[hit.member], member.value)?;
            }
        }
        if at < stored.len() - 1 {
            comma.push(out);
            out.push(&stored[at..stored.len() - 1]);
        }
        for (member, written) in self.members.iter().zip(written) {
            if !written && !member.superseded && member.stays(null) {
                comma.push(out);
                out.push(member.quoted);
                out.push(b":");
                put(out, None, member.value)?;
            }
        }
        out.push(b"}");
        Ok(())
    }
}

impl Member<'_> {
    fn stays(&self, null: Null) -> bool {
        null == Null::Stored || self.value != b"null"
    }
}

/// Writes nothing the first time and a comma from then on.
#[derive(Default)]
pub(super) struct Comma {
    due: bool,
}

impl Comma {
    pub(super) fn push(&mut self, out: &mut Output) {
        if std::mem::replace(&mut self.due, true) {
            out.push(b",");
        }
    }
}
