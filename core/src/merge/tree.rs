//! A document that is text until a pointer leads through it: only those objects and arrays are split into parts.
//!
//! Functions here recurse over split parts. Pointers and attached parts are kept within the depth limit by `json_patch`, so
//! the recursion is bounded.

use std::borrow::Cow;

use super::output::Output;
use super::overlay::Comma;
use super::pointer::index;
use super::string::{plain, quoted};
use super::text::{Broken, Items, is_array, is_object};
use super::work::{LOOKUP, PART, SHIFT, Stop, Work};

#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    Text(&'a [u8]),
    Object(Vec<Member<'a>>),
    Array(Vec<Node<'a>>),
}

#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    name: Name<'a>,
    value: Node<'a>,
}

#[derive(Clone, Debug)]
struct Name<'a> {
    quoted: Cow<'a, [u8]>,
    /// The characters, where they are not what stands between the quotes.
    plain: Option<Box<[u8]>>,
}

/// What a part of the document amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Bytes of its text.
    pub(super) len: usize,
    /// Levels of split objects and arrays.
    pub(super) depth: u32,
    /// Parts that are made when it is copied.
    pub(super) parts: usize,
}

impl<'a> Name<'a> {
    fn stored(quoted: &'a [u8]) -> Self {
        let plain = match plain(quoted) {
            Cow::Borrowed(_) => None,
            Cow::Owned(plain) => Some(plain.into_boxed_slice()),
        };
        Self {
            quoted: Cow::Borrowed(quoted),
            plain,
        }
    }

    fn new(token: &[u8]) -> Self {
        let quoted = quoted(token);
        let plain = (quoted.len() != token.len() + 2).then(|| token.into());
        Self {
            quoted: Cow::Owned(quoted),
            plain,
        }
    }

    fn is(&self, token: &[u8]) -> bool {
        match &self.plain {
            Some(plain) => **plain == *token,
            None => self.quoted.len() == token.len() + 2 && self.quoted[1..].starts_with(token),
        }
    }
}

impl<'a> Node<'a> {
    /// The part at this name or index, for reading.
    pub(super) fn get(&mut self, token: &[u8], work: &mut Work) -> Result<Option<&mut Self>, Stop> {
        self.split(work)?;
        Ok(match self {
            Node::Object(members) => {
                work.spend(members.len() * LOOKUP)?;
                let mut members = members.iter_mut().rev();
                members
                    .find(|member| member.name.is(token))
                    .map(|member| &mut member.value)
            }
            Node::Array(elements) => index(token).and_then(|index| elements.get_mut(index)),
            Node::Text(_) => None,
        })
    }

    /// The part at this name or index, for a change in it: duplicates of the name become one member.
    pub(super) fn get_single(
        &mut self,
        token: &[u8],
        work: &mut Work,
    ) -> Result<Option<&mut Self>, Stop> {
        self.split(work)?;
        match self {
            Node::Object(members) => {
                let found = single(members, token, work)?;
                Ok(found.map(|index| &mut members[index].value))
            }
            Node::Array(_) | Node::Text(_) => self.get(token, work),
        }
    }

    /// Puts a part at this name, replacing what is there, or before this index, where `-` is the end. Whether that
    /// could be done.
    pub(super) fn put(
        &mut self,
        token: &[u8],
        value: Node<'a>,
        work: &mut Work,
    ) -> Result<bool, Stop> {
        self.split(work)?;
        match self {
            Node::Object(members) => {
                match single(members, token, work)? {
                    Some(index) => members[index].value = value,
                    None => members.push(Member {
                        name: Name::new(token),
                        value,
                    }),
                }
                Ok(true)
            }
            Node::Array(elements) => {
                let end = elements.len();
                let at = if token == b"-" {
                    Some(end)
                } else {
                    index(token).filter(|at| *at <= end)
                };
                let Some(at) = at else { return Ok(false) };
                work.spend((end - at) * SHIFT)?;
                elements.insert(at, value);
                Ok(true)
            }
            Node::Text(_) => Ok(false),
        }
    }

    /// Takes the part at this name or index out.
    pub(super) fn take(&mut self, token: &[u8], work: &mut Work) -> Result<Option<Self>, Stop> {
        self.split(work)?;
        match self {
            Node::Object(members) => {
                let Some(index) = single(members, token, work)? else {
                    return Ok(None);
                };
                work.spend((members.len() - index) * SHIFT)?;
                Ok(Some(members.remove(index).value))
            }
            Node::Array(elements) => {
                let Some(index) = index(token).filter(|index| *index < elements.len()) else {
                    return Ok(None);
                };
                work.spend((elements.len() - index) * SHIFT)?;
                Ok(Some(elements.remove(index)))
            }
            Node::Text(_) => Ok(None),
        }
    }

    /// Makes parts of a text that is an object or an array.
    fn split(&mut self, work: &mut Work) -> Result<(), Stop> {
        let Node::Text(text) = *self else {
            return Ok(());
        };
        let object = is_object(text);
        if !object && !is_array(text) {
            return Ok(());
        }
        work.spend(text.len())?;
        let items = Items::of(text).map_err(|Broken| Stop::Broken)?;
        let (mut members, mut elements) = (Vec::new(), Vec::new());
        for item in items {
            let item = item.map_err(|Broken| Stop::Broken)?;
            work.spend(PART)?;
            let value = Node::Text(item.value);
            if object {
                members.push(Member {
                    name: Name::stored(item.name),
                    value,
                });
            } else {
                elements.push(value);
            }
        }
        *self = if object {
            Node::Object(members)
        } else {
            Node::Array(elements)
        };
        Ok(())
    }

    pub(super) fn measure(&self) -> Measure {
        match self {
            Node::Text(text) => Measure {
                len: text.len(),
                depth: 0,
                parts: 1,
            },
            Node::Object(members) => within(members.iter().map(|member| {
                let inner = member.value.measure();
                Measure {
                    len: inner.len + member.name.quoted.len() + 1,
                    ..inner
                }
            })),
            Node::Array(elements) => within(elements.iter().map(Node::measure)),
        }
    }

    pub(super) fn write(&self, out: &mut Output) {
        let mut comma = Comma::default();
        match self {
            Node::Text(text) => out.push(text),
            Node::Object(members) => {
                out.push(b"{");
                for member in members {
                    comma.push(out);
                    out.push(&member.name.quoted);
                    out.push(b":");
                    member.value.write(out);
                }
                out.push(b"}");
            }
            Node::Array(elements) => {
                out.push(b"[");
                for element in elements {
                    comma.push(out);
                    element.write(out);
                }
                out.push(b"]");
            }
        }
    }
}

/// An object or array of these: two brackets, and commas between.
fn within(items: impl Iterator<Item = Measure>) -> Measure {
    let mut count = 0_usize;
    let mut sum = Measure {
        len: 2,
        depth: 0,
        parts: 1,
    };
    for item in items {
        count += 1;
        sum.len += item.len;
        sum.depth = sum.depth.max(item.depth);
        sum.parts += item.parts;
    }
    Measure {
        len: sum.len + count.saturating_sub(1),
        depth: sum.depth + 1,
        ..sum
    }
}

/// The position of the only member of this name: the first takes the value of the last, and the others go.
fn single(
    members: &mut Vec<Member<'_>>,
    token: &[u8],
    work: &mut Work,
) -> Result<Option<usize>, Stop> {
    work.spend(members.len() * LOOKUP)?;
    let named = |member: &Member<'_>| member.name.is(token);
    let Some(first) = members.iter().position(named) else {
        return Ok(None);
    };
    let last = members.iter().rposition(named).unwrap_or(first);
    if first != last {
        work.spend(members.len() * SHIFT)?;
        members[first].value = std::mem::replace(&mut members[last].value, Node::Text(b""));
        let mut position = 0;
        members.retain(|member| {
            let stays = position <= first || !named(member);
            position += 1;
            stays
        });
    }
    Ok(Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(node: &Node<'_>) -> String {
        let mut out = Output::new(0, usize::MAX);
        node.write(&mut out);
        String::from_utf8(out.finish().expect("no limit")).expect("cut at characters")
    }

    #[test]
    fn a_slot_of_the_tree_stays_small() {
        assert!(size_of::<Node<'_>>() <= 32, "{}", size_of::<Node<'_>>());
        assert!(size_of::<Member<'_>>() <= 72, "{}", size_of::<Member<'_>>());
    }

    #[test]
    fn a_split_document_writes_and_measures_as_its_text() {
        let document = r#"{"a":[1.50,{"b\u0062":"\/"},[]],"c":{},"a":null}"#;
        let mut work = Work::new(0);
        let mut root = Node::Text(document.as_bytes());
        assert_eq!(
            root.measure(),
            Measure {
                len: document.len(),
                depth: 0,
                parts: 1
            }
        );
        for path in [&["c", "x"][..], &["a", "x"]] {
            let mut node = Some(&mut root);
            for token in path {
                node = node.and_then(|node| node.get(token.as_bytes(), &mut work).expect("valid"));
            }
            assert!(node.is_none(), "{path:?}");
        }
        assert_eq!(text(&root), document);
        assert_eq!(
            root.measure(),
            Measure {
                len: document.len(),
                depth: 2,
                parts: 4
            }
        );
    }

    #[test]
    fn duplicates_become_one_only_for_a_change() {
        let document = br#"{"a":1,"b":2,"\u0061":3,"c":4,"a":5}"#;
        let mut work = Work::new(0);
        let mut root = Node::Text(document);
        let found = root.get(b"a", &mut work).expect("valid").expect("there");
        assert_eq!(text(found), "5");
        assert_eq!(text(&root).as_bytes(), document);
        let found = root
            .get_single(b"a", &mut work)
            .expect("valid")
            .expect("there");
        assert_eq!(text(found), "5");
        assert_eq!(text(&root), r#"{"a":5,"b":2,"c":4}"#);
        assert!(
            root.put(b"q\"", Node::Text(b"6"), &mut work)
                .expect("valid")
        );
        assert!(root.take(b"b", &mut work).expect("valid").is_some());
        assert_eq!(text(&root), r#"{"a":5,"c":4,"q\"":6}"#);
    }
}
