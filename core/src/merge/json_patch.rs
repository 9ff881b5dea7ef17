//! JSON Patch, RFC 6902: operations in order on a split document; the stored value is not touched, so all or none.

use super::operation::{self, Action, Operation};
use super::output::Output;
use super::pointer::Pointer;
use super::tree::Node;
use super::work::{PART, Stop, Work};
use super::{PatchError, PatchLimits, depth_max, equal};

/// Steps between the first and the last operation may be this many times as large as the result may be, so that adding
/// before removing is no worse than the other way round.
const INTERMEDIATE_FACTOR: usize = 2;

pub(super) fn write(
    out: &mut Output,
    stored: Option<&[u8]>,
    patch: &[u8],
    limits: &PatchLimits,
) -> Result<(), PatchError> {
    let operations = operation::read(patch)?;
    let Some(stored) = stored else {
        return Err(PatchError::PathMissing {
            index: 0,
            path: String::new(),
        });
    };
    let len = stored.len().saturating_add(patch.len());
    let mut document = Document {
        root: Node::Text(stored),
        work: Work::new(len),
        limits,
        patch_len: patch.len(),
        len_at_most: len,
    };
    for (index, Operation { path, action }) in operations.into_iter().enumerate() {
        document
            .apply(&path, action)
            .map_err(|failure| match failure {
                Failure::Missing(path) => PatchError::PathMissing { index, path },
                Failure::Test => PatchError::TestFailed {
                    index,
                    path: path.shown(),
                },
                Failure::Large { len } => PatchError::TooLarge {
                    len,
                    max: limits.value_bytes_max,
                },
                Failure::Stop(stop) => stop.error(index, depth_max(limits)),
            })?;
    }
    document.root.write(out);
    Ok(())
}

struct Document<'a> {
    root: Node<'a>,
    work: Work,
    limits: &'a PatchLimits,
    /// Every value that an operation brings is part of the patch, so together they have no more bytes than it.
    patch_len: usize,
    /// What the document and the values still to come can amount to.
    len_at_most: usize,
}

/// Why an operation cannot be applied.
enum Failure {
    Missing(String),
    Test,
    Large { len: usize },
    Stop(Stop),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Failure::Stop(stop)
    }
}

impl Failure {
    fn missing(path: &Pointer<'_>) -> Self {
        Failure::Missing(path.shown())
    }
}

/// `Node::get` to read what is found, `Node::get_single` to change something in it.
type Step<'a> =
    for<'n> fn(&'n mut Node<'a>, &[u8], &mut Work) -> Result<Option<&'n mut Node<'a>>, Stop>;

impl<'a> Document<'a> {
    fn apply(&mut self, path: &Pointer<'_>, action: Action<'a>) -> Result<(), Failure> {
        match action {
            Action::Add(value) => self.add(path, Node::Text(value)),
            Action::Remove => self.remove(path).map(drop),
            Action::Replace(value) => {
                let (found, _) = self.find(path, Node::get_single)?;
                *found = Node::Text(value);
                Ok(())
            }
            // Taking a member out and putting it back would move it to the end of its object.
            Action::Move { from } if from == *path => self.find(path, Node::get).map(drop),
            Action::Move { from } => {
                let value = self.remove(&from)?;
                self.add(path, value)
            }
            Action::Copy { from } => {
                let value = self.copy(&from)?;
                self.add(path, value)
            }
            Action::Test(value) => self.test(path, value),
        }
    }

    /// The part at a location, and what further work on it is counted by.
    fn find(
        &mut self,
        path: &Pointer<'_>,
        step: Step<'a>,
    ) -> Result<(&mut Node<'a>, &mut Work), Failure> {
        self.allow_depth(path.depth())?;
        let mut node = &mut self.root;
        for token in path.tokens() {
            node = step(node, &token, &mut self.work)?.ok_or_else(|| Failure::missing(path))?;
        }
        Ok((node, &mut self.work))
    }

    /// Keeps what is split within the limit, and with it every recursion over the tree.
    fn allow_depth(&self, depth: usize) -> Result<(), Stop> {
        if depth <= depth_max(self.limits) as usize {
            Ok(())
        } else {
            Err(Stop::Deep)
        }
    }

    fn add(&mut self, path: &Pointer<'_>, value: Node<'a>) -> Result<(), Failure> {
        let measure = value.measure();
        self.work.spend(measure.parts)?;
        self.allow_depth(path.depth().saturating_add(measure.depth as usize))?;
        let Some((parent, token)) = path.split() else {
            self.root = value;
            return Ok(());
        };
        let (container, work) = self.find(&parent, Node::get_single)?;
        if container.put(&token, value, work)? {
            Ok(())
        } else {
            Err(Failure::missing(path))
        }
    }

    fn remove(&mut self, path: &Pointer<'_>) -> Result<Node<'a>, Failure> {
        self.allow_depth(path.depth())?;
        // The whole document is never removed: such operations are malformed.
        let (parent, token) = path.split().ok_or_else(|| Failure::missing(path))?;
        let (container, work) = self.find(&parent, Node::get_single)?;
        container
            .take(&token, work)?
            .ok_or_else(|| Failure::missing(path))
    }

    /// Only copies can make a document larger than stored value and patch together, twice as large each time, so
    /// growth is stopped here.
    fn copy(&mut self, from: &Pointer<'_>) -> Result<Node<'a>, Failure> {
        let max = self
            .limits
            .value_bytes_max
            .saturating_mul(INTERMEDIATE_FACTOR);
        let (source, work) = self.find(from, Node::get)?;
        let source = source.measure();
        work.spend(source.parts * PART)?;
        if self.len_at_most.saturating_add(source.len) > max {
            let whole = self.root.measure();
            self.work.spend(whole.parts)?;
            let len = whole.len.saturating_add(source.len);
            if len > max {
                return Err(Failure::Large { len });
            }
            self.len_at_most = whole.len.saturating_add(self.patch_len);
        }
        self.len_at_most = self.len_at_most.saturating_add(source.len);
        let (source, _) = self.find(from, Node::get)?;
        Ok(source.clone())
    }

    fn test(&mut self, path: &Pointer<'_>, expected: &[u8]) -> Result<(), Failure> {
        let levels = depth_max(self.limits);
        let (found, work) = self.find(path, Node::get)?;
        let same = if let Node::Text(text) = found {
            equal::same(text, expected, levels, work)?
        } else {
            let measure = found.measure();
            work.spend(measure.len.saturating_add(measure.parts))?;
            let mut text = Output::new(measure.len, usize::MAX);
            found.write(&mut text);
            let text = text.finish().expect("nothing exceeds no limit");
            equal::same(&text, expected, levels, work)?
        };
        if same { Ok(()) } else { Err(Failure::Test) }
    }
}
