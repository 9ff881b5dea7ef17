//! Operations of a batch, read strictly: the first that is malformed refuses them all, by its index.

use super::context::Context as LoopState;
use super::etag;
use super::fault::Fault;
use super::ttl::{self, Ttl};
use super::value;
use crate::engine::{
    BatchKind, BatchOperation, OwnedConditions, PatchKind, PatchTtl, PutTtl, VersionCondition,
};
use bytes::Bytes;
use inflightkv_validation::check_key;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// One operation as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    // `null` is a value too, so it must not read as an absent one.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(default, rename = "ifVersion", deserialize_with = "present")]
    if_version: Option<i64>,
    #[serde(borrow, default, rename = "ifMatch", deserialize_with = "present")]
    if_match: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    ttl: Option<WrittenTtl<'a>>,
    #[serde(default, deserialize_with = "present")]
    pin: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenTtl<'a> {
    Seconds(i64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether an operation changes nothing.
pub(crate) fn only_reads(operation: &BatchOperation) -> bool {
    matches!(operation.kind, BatchKind::Get)
}

/// `{"ops":[…]}`
pub(crate) fn from_document(body: &Bytes, state: &LoopState) -> Result<Vec<BatchOperation>, Fault> {
    let mut reader = Reader {
        body,
        state,
        operations: Vec::new(),
        fault: None,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Document(&mut reader)
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    match (reader.fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Ok(())) => Ok(reader.operations),
        (None, Err(error)) => Err(Fault::Batch {
            reason: error.to_string(),
        }),
    }
}

/// An operation a line. Empty lines are none.
pub(crate) fn from_lines(body: &Bytes, state: &LoopState) -> Result<Vec<BatchOperation>, Fault> {
    let mut reader = Reader {
        body,
        state,
        operations: Vec::new(),
        fault: None,
    };
    for line in body
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
    {
        reader.take(line)?;
    }
    Ok(reader.operations)
}

struct Reader<'a> {
    body: &'a Bytes,
    state: &'a LoopState,
    operations: Vec<BatchOperation>,
    fault: Option<Fault>,
}

impl Reader<'_> {
    /// Takes the text of the next operation.
    fn take(&mut self, text: &[u8]) -> Result<(), Fault> {
        let max = self.state.settings.batch_operations_max;
        if self.operations.len() == max {
            return Err(Fault::TooManyOperations { max });
        }
        let index = self.operations.len();
        let written =
            serde_json::from_slice::<Written<'_>>(text).map_err(|error| error.to_string());
        let operation = written.and_then(|written| self.operation(written));
        self.operations
            .push(operation.map_err(|reason| Fault::Operation { index, reason })?);
        Ok(())
    }

    fn operation(&self, written: Written<'_>) -> Result<BatchOperation, String> {
        let Written {
            op,
            key,
            value,
            if_version,
            if_match,
            ttl,
            pin,
        } = written;
        check_key(&key, &self.state.key_limits).map_err(|violation| violation.to_string())?;
        let version = match if_version {
            None => None,
            Some(-1) => Some(VersionCondition::Absent),
            Some(version) => match u64::try_from(version) {
                Ok(version) => Some(VersionCondition::Is(version)),
                Err(_) => return Err("`ifVersion` must be an integer, -1 or more".to_owned()),
            },
        };
        let ttl = match ttl {
            None => None,
            Some(WrittenTtl::Seconds(seconds)) => Some(ttl::from_seconds(seconds)),
            Some(WrittenTtl::Text(text)) => Some(ttl::parse(&text)),
        }
        .transpose()
        .map_err(|error| format!("`ttl` {error}"))?;
        let unfit = |name: &str, there: bool| {
            if there {
                Err(format!("`{name}` does not apply to `{op}`"))
            } else {
                Ok(())
            }
        };
        let json = || {
            value
                .ok_or_else(|| format!("`{op}` needs a `value`"))
                .and_then(|value| self.json(value))
        };
        let kind = match &*op {
            "get" => {
                unfit("ifVersion", version.is_some())?;
                unfit("ifMatch", if_match.is_some())?;
                BatchKind::Get
            }
            "put" => {
                let ttl = match ttl {
                    Some(Ttl::For(ms)) => PutTtl::For(ms),
                    Some(Ttl::Clear) | None => PutTtl::Clear,
                };
                BatchKind::Put {
                    value: value::json(&json()?),
                    ttl,
                }
            }
            "patch" => {
                let ttl = match ttl {
                    None => PatchTtl::Keep,
                    Some(Ttl::Clear) => PatchTtl::Clear,
                    Some(Ttl::For(ms)) => PatchTtl::For(ms),
                };
                BatchKind::Patch {
                    kind: PatchKind::Merge,
                    patch: json()?,
                    ttl,
                }
            }
            "delete" => BatchKind::Delete,
            other => {
                let shown: String = other.chars().take(32).collect();
                return Err(format!(
                    "`op` is `{shown}`, expected get, put, patch or delete"
                ));
            }
        };
        if matches!(kind, BatchKind::Get | BatchKind::Delete) {
            unfit("value", value.is_some())?;
            unfit("ttl", ttl.is_some())?;
            unfit("pin", pin.is_some())?;
        }
        let conditions = OwnedConditions {
            version,
            if_match: if_match.map(|text| etag::parse_one(&text).into_owned()),
            if_none_match: None,
        };
        Ok(BatchOperation {
            key: key.into_owned(),
            kind,
            conditions,
            pin,
        })
    }

    fn json(&self, value: &RawValue) -> Result<Bytes, String> {
        // A slice of the body: what the store keeps for long it is given a copy of.
        let text = self.body.slice_ref(value.get().as_bytes());
        value::minified(&text, &self.state.json_limits)
            .map_err(|error| format!("`value` is not acceptable: {error}"))
    }
}

/// The object around the operations.
struct Document<'a, 'b>(&'a mut Reader<'b>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the member `ops`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match &*name {
                "ops" if seen => return Err(serde::de::Error::duplicate_field("ops")),
                "ops" => {
                    seen = true;
                    map.next_value_seed(Operations(&mut *self.0))?;
                }
                other => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(serde::de::Error::unknown_field(other, &["ops"]));
                }
            }
        }
        if seen {
            Ok(())
        } else {
            Err(serde::de::Error::missing_field("ops"))
        }
    }
}

/// The operations, each read as soon as its text is there: the number of them is bounded before memory is spent.
struct Operations<'a, 'b>(&'a mut Reader<'b>);

impl<'de> DeserializeSeed<'de> for Operations<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Operations<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of operations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        loop {
            match sequence.next_element::<&'de RawValue>() {
                Ok(Some(text)) => {
                    if let Err(fault) = self.0.take(text.get().as_bytes()) {
                        self.0.fault = Some(fault);
                        return Err(serde::de::Error::custom("refused"));
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let index = self.0.operations.len();
                    self.0.fault = Some(Fault::Operation {
                        index,
                        reason: error.to_string(),
                    });
                    return Err(error);
                }
            }
        }
    }
}
