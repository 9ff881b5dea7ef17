//! JSON values with patches by the letter of their definitions: what the model computes with.

use inflightkv_core::PatchKind;
use proptest::prelude::*;

pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Number(u8),
    /// A string of that many characters.
    Text(usize),
    /// Members in their order, names unique.
    Object(Vec<(&'static str, Json)>),
}

#[derive(Clone, Debug)]
pub(crate) enum Document {
    Shallow(Json),
    Merge(Json),
    Json(Vec<(Step, &'static str, Json)>),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Add,
    Replace,
    Remove,
    Test,
}

impl Json {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(len) => format!("\"{}\"", "x".repeat(*len)),
            Self::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{}", value.text()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn members(&self) -> Option<&[(&'static str, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Equal but for the order of members.
    fn equals(&self, other: &Self) -> bool {
        match (self.members(), other.members()) {
            (Some(ours), Some(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().all(|(name, value)| {
                        theirs
                            .iter()
                            .any(|(other, theirs)| name == other && value.equals(theirs))
                    })
            }
            (None, None) => self == other,
            _ => false,
        }
    }
}

fn set(members: &mut Vec<(&'static str, Json)>, name: &'static str, value: Json) {
    match members.iter_mut().find(|(there, _)| *there == name) {
        Some(member) => member.1 = value,
        None => members.push((name, value)),
    }
}

fn take(members: &mut Vec<(&'static str, Json)>, name: &str) -> bool {
    let before = members.len();
    members.retain(|(there, _)| *there != name);
    members.len() < before
}

/// RFC 7396, section 2.
fn merge(target: Option<&Json>, patch: &Json) -> Json {
    let Some(patch) = patch.members() else {
        return patch.clone();
    };
    let mut merged = target.and_then(Json::members).unwrap_or_default().to_vec();
    for (name, value) in patch {
        if *value == Json::Null {
            take(&mut merged, name);
        } else {
            let there = merged
                .iter()
                .find(|(there, _)| there == name)
                .map(|(_, value)| value.clone());
            set(&mut merged, name, merge(there.as_ref(), value));
        }
    }
    Json::Object(merged)
}

impl Document {
    pub(crate) fn kind(&self) -> PatchKind {
        match self {
            Self::Shallow(_) => PatchKind::Shallow,
            Self::Merge(_) => PatchKind::Merge,
            Self::Json(_) => PatchKind::Json,
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Shallow(patch) | Self::Merge(patch) => patch.text(),
            Self::Json(steps) => {
                let steps: Vec<_> = steps
                    .iter()
                    .map(|(step, name, value)| {
                        let op = format!("{step:?}").to_lowercase();
                        format!(
                            "{{\"op\":\"{op}\",\"path\":\"/{name}\",\"value\":{}}}",
                            value.text()
                        )
                    })
                    .collect();
                format!("[{}]", steps.join(","))
            }
        }
    }

    /// The value this makes of `stored`; `None` when it cannot be applied. A JSON Patch needs something stored.
    pub(crate) fn apply(&self, stored: Option<&Json>) -> Option<Json> {
        match self {
            Self::Shallow(patch) => match (stored.and_then(Json::members), patch.members()) {
                (Some(stored), Some(patch)) => {
                    let mut merged = stored.to_vec();
                    patch
                        .iter()
                        .for_each(|(name, value)| set(&mut merged, name, value.clone()));
                    Some(Json::Object(merged))
                }
                _ => Some(patch.clone()),
            },
            Self::Merge(patch) => Some(merge(stored, patch)),
            Self::Json(steps) => {
                let stored = stored?;
                if steps.is_empty() {
                    return Some(stored.clone());
                }
                let mut members = stored.members()?.to_vec();
                for (step, name, value) in steps {
                    let there = members
                        .iter()
                        .find(|(there, _)| there == name)
                        .map(|(_, value)| value);
                    match (step, there) {
                        (Step::Add, _) | (Step::Replace, Some(_)) => {
                            set(&mut members, name, value.clone());
                        }
                        (Step::Remove, Some(_)) => drop(take(&mut members, name)),
                        (Step::Test, Some(there)) if there.equals(value) => {}
                        _ => return None,
                    }
                }
                Some(Json::Object(members))
            }
        }
    }
}

pub(crate) fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        2 => Just(Json::Null),
        6 => (0..3_u8).prop_map(Json::Number),
        2 => (0..4_usize).prop_map(Json::Text),
        // Beyond what is kept inline.
        1 => (2_040..2_060_usize).prop_map(Json::Text),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop::collection::vec((prop::sample::select(&NAMES[..]), inner), 0..4).prop_map(|drawn| {
            let mut members = Vec::new();
            drawn
                .into_iter()
                .for_each(|(name, value)| set(&mut members, name, value));
            Json::Object(members)
        })
    })
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
    let step = prop::sample::select(&[Step::Add, Step::Replace, Step::Remove, Step::Test][..]);
    let steps = prop::collection::vec((step, prop::sample::select(&NAMES[..]), json()), 0..3);
    prop_oneof![
        json().prop_map(Document::Shallow),
        json().prop_map(Document::Merge),
        steps.prop_map(Document::Json),
    ]
}
