//! The operations of a JSON Patch, RFC 6902 section 4, checked before the first one is applied.

use super::pointer::Pointer;
use super::string::plain;
use super::text::{Broken, Items, is_array, is_object};
use super::{PatchError, unreadable};

#[derive(Debug)]
pub(super) struct Operation<'p> {
    pub(super) path: Pointer<'p>,
    pub(super) action: Action<'p>,
}

#[derive(Debug)]
pub(super) enum Action<'p> {
    Add(&'p [u8]),
    Remove,
    Replace(&'p [u8]),
    Move { from: Pointer<'p> },
    Copy { from: Pointer<'p> },
    Test(&'p [u8]),
}

pub(super) fn read(patch: &[u8]) -> Result<Vec<Operation<'_>>, PatchError> {
    if !is_array(patch) {
        return Err(PatchError::Unreadable {
            reason: "expected an array of operations",
        });
    }
    let mut operations = Vec::new();
    for (index, item) in Items::of(patch).map_err(|Broken| unreadable())?.enumerate() {
        let item = item.map_err(|Broken| unreadable())?;
        let operation = operation(item.value);
        operations.push(operation.map_err(|reason| PatchError::Malformed { index, reason })?);
    }
    Ok(operations)
}

fn operation(text: &[u8]) -> Result<Operation<'_>, &'static str> {
    const OBJECT: &str = "an operation is an object";
    if !is_object(text) {
        return Err(OBJECT);
    }
    let (mut op, mut path, mut from, mut value) = (None, None, None, None);
    for item in Items::of(text).map_err(|Broken| OBJECT)? {
        let item = item.map_err(|Broken| OBJECT)?;
        let (field, repeated) = match &*plain(item.name) {
            b"op" => (&mut op, "\"op\" is there more than once"),
            b"path" => (&mut path, "\"path\" is there more than once"),
            b"from" => (&mut from, "\"from\" is there more than once"),
            b"value" => (&mut value, "\"value\" is there more than once"),
            // Section 4: members that are not defined for the operation are ignored.
            _ => continue,
        };
        if field.replace(item.value).is_some() {
            return Err(repeated);
        }
    }

    let op = op.ok_or("\"op\" is missing")?;
    let path = path.ok_or("\"path\" is missing")?;
    let path = Pointer::read(path).map_err(|Broken| "\"path\" is no JSON Pointer")?;
    let value = value.ok_or("\"value\" is missing");
    let from = || {
        let from = from.ok_or("\"from\" is missing")?;
        Pointer::read(from).map_err(|Broken| "\"from\" is no JSON Pointer")
    };
    let action = match &*plain(op) {
        _ if op.first() != Some(&b'"') => return Err("\"op\" is no string"),
        b"add" => Action::Add(value?),
        b"remove" if path.is_whole() => return Err("the whole document cannot be removed"),
        b"remove" => Action::Remove,
        b"replace" => Action::Replace(value?),
        b"move" => {
            let from = from()?;
            if from.contains(&path) {
                return Err("a value cannot be moved into itself");
            }
            Action::Move { from }
        }
        b"copy" => Action::Copy { from: from()? },
        b"test" => Action::Test(value?),
        _ => return Err("\"op\" is none of add, remove, replace, move, copy and test"),
    };
    Ok(Operation { path, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_operation_is_named() {
        for (operation, expected) in [
            ("1", "an operation is an object"),
            (r#"{"path":"/a"}"#, "\"op\" is missing"),
            (r#"{"op":1,"path":"/a"}"#, "\"op\" is no string"),
            (
                r#"{"op":"spam","path":"/a"}"#,
                "\"op\" is none of add, remove, replace, move, copy and test",
            ),
            (r#"{"op":"add","value":1}"#, "\"path\" is missing"),
            (
                r#"{"op":"add","path":null,"value":1}"#,
                "\"path\" is no JSON Pointer",
            ),
            (
                r#"{"op":"add","path":"a","value":1}"#,
                "\"path\" is no JSON Pointer",
            ),
            (r#"{"op":"test","path":"/a"}"#, "\"value\" is missing"),
            (r#"{"op":"copy","path":"/a"}"#, "\"from\" is missing"),
            (
                r#"{"op":"move","path":"/a","from":"/~"}"#,
                "\"from\" is no JSON Pointer",
            ),
            (
                r#"{"op":"move","path":"/a/b","from":"/a"}"#,
                "a value cannot be moved into itself",
            ),
            (
                r#"{"op":"remove","path":""}"#,
                "the whole document cannot be removed",
            ),
            (
                r#"{"op":"add","path":"/a","value":1,"\u006fp":"remove"}"#,
                "\"op\" is there more than once",
            ),
            (
                r#"{"op":"add","path":"/a","value":1,"value":1}"#,
                "\"value\" is there more than once",
            ),
        ] {
            let patch = format!(r#"[{{"op":"test","path":"","value":1,"x":1}},{operation}]"#);
            let found = read(patch.as_bytes()).expect_err(operation);
            assert_eq!(
                found,
                PatchError::Malformed {
                    index: 1,
                    reason: expected
                },
                "{operation}"
            );
        }
    }

    #[test]
    fn what_is_no_list_of_operations_is_unreadable() {
        for patch in ["", "{}", "1", "[", "[{}", "[{},]", "[1}"] {
            let found = read(patch.as_bytes()).expect_err(patch);
            assert!(
                matches!(
                    found,
                    PatchError::Unreadable { .. } | PatchError::Malformed { index: 0, .. }
                ),
                "{patch}: {found:?}"
            );
        }
    }
}
