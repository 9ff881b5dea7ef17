//! The rule file: TOML to rules, every mistake named by line and key.

use super::charset::{self, Charset};
use super::check::{KINDS, KeyCheck, Reserved, ValueCheck};
use super::error::RuleFileError;
use super::filter::{self, Filter, Scalar};
use super::media::MediaRange;
use super::schema::Schema;
use super::walk::Pointer;
use super::{Compiled, Mode, Scope};
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest rule file, in bytes.
const BYTES_MAX: usize = 4 << 20;
/// Most rules of one file.
const RULES_MAX: usize = 1000;
/// Longest name, prefix or reserved word, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
const COUNT_MAX: u64 = 1 << 30;
const LENGTH_MAX: u64 = 65_535;

/// Every key of a rule.
const KEYS: [&str; 22] = [
    "name",
    "prefix",
    "pattern",
    "mode",
    "key-min-length",
    "key-max-length",
    "key-charset",
    "key-pattern",
    "reserved",
    "value-max-size",
    "value-types",
    "value-json-type",
    "value-max-depth",
    "value-max-members",
    "value-duplicate-members",
    "value-numbers",
    "value-schema",
    "value-schema-file",
    "value-deny",
    "value-require",
    "value-forbidden-members",
    "description",
];

type Value<'i> = Spanned<DeValue<'i>>;
type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<String>;

/// Reads a rule file's text; `read` gives the text of a file that it names.
pub(crate) fn parse(text: &str, read: ReadFile<'_>) -> Result<Vec<Compiled>, RuleFileError> {
    let file = File { text, read };
    if text.len() > BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return Err(file.error(0..0, "", found, format!("at most {BYTES_MAX} bytes")));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let found = format!("what is not TOML ({})", error.message().replace('\n', ", "));
        file.error(
            error.span().unwrap_or(0..0),
            "",
            found,
            "[[rule]] tables in TOML",
        )
    })?;
    let mut rules = Vec::new();
    let mut names = HashSet::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "rule" {
            let found = "an unknown key";
            return Err(file.error(key.span(), key.get_ref(), found, "[[rule]] tables"));
        }
        let Some(tables) = value.get_ref().as_array() else {
            return Err(file.wrong("rule", value, "[[rule]] tables, in two brackets"));
        };
        if tables.len() > RULES_MAX {
            let found = format!("{} rules", tables.len());
            return Err(file.error(value.span(), "rule", found, format!("at most {RULES_MAX}")));
        }
        for (index, table) in tables.iter().enumerate() {
            let Some(entries) = table.get_ref().as_table() else {
                return Err(file.wrong("rule", table, "a table"));
            };
            let rule = file.rule(table.span(), entries, index)?;
            if !names.insert(rule.name.clone()) {
                let found = format!("a second rule named \"{}\"", rule.name);
                let place = entries.get("name").map_or(table.span(), Spanned::span);
                return Err(file.error(place, "name", found, "names that differ"));
            }
            rules.push(rule);
        }
    }
    Ok(rules)
}

struct File<'a> {
    text: &'a str,
    read: ReadFile<'a>,
}

impl File<'_> {
    fn rule(
        &self,
        place: Range<usize>,
        entries: &DeTable<'_>,
        index: usize,
    ) -> Result<Compiled, RuleFileError> {
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut rule = Compiled::new(index);
        let mut named = false;
        let mut scope: Option<(&str, Scope)> = None;
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            match name {
                "name" => {
                    named = true;
                    rule.name = self.text_of(name, value)?.into();
                }
                "description" => {
                    self.text_of(name, value)?;
                }
                "mode" => {
                    let modes = [
                        ("enforce", Mode::Enforce),
                        ("report-only", Mode::ReportOnly),
                    ];
                    rule.mode = self.choice(name, value, &modes)?;
                }
                "prefix" | "pattern" => {
                    let this = if name == "prefix" {
                        Scope::Prefix(self.string(name, value)?.to_owned())
                    } else {
                        Scope::pattern(self.regex(name, value)?)
                    };
                    if let Some((other, _)) = scope {
                        let found = format!("{name} beside {other}");
                        return Err(self.error(key.span(), name, found, "one of the two"));
                    }
                    scope = Some((
                        if name == "prefix" {
                            "prefix"
                        } else {
                            "pattern"
                        },
                        this,
                    ));
                }
                name if name.starts_with("key-") || name == "reserved" => {
                    match self.key_check(name, value)? {
                        Some(check) => rule.key_checks.push(check),
                        None => return Err(self.unknown(key)),
                    }
                }
                name => match self.value_check(name, value)? {
                    Some(check) => {
                        if rule.value_checks.iter().any(|had| had.bit() == check.bit()) {
                            let found = "both value-schema and value-schema-file";
                            return Err(self.error(key.span(), name, found, "one of the two"));
                        }
                        rule.value_checks.push(check);
                    }
                    None => return Err(self.unknown(key)),
                },
            }
        }
        if !named {
            return Err(self.error(
                place,
                "name",
                "a rule without a name",
                "a name for each rule",
            ));
        }
        if let Some((_, scope)) = scope {
            rule.scope = scope;
        }
        self.not_hopeless(place, &rule)?;
        // Cheap ones first; the order of the file means nothing.
        rule.key_checks.sort_by_key(KeyCheck::bit);
        rule.value_checks.sort_by_key(ValueCheck::bit);
        Ok(rule)
    }

    fn key_check(&self, name: &str, value: &Value<'_>) -> Result<Option<KeyCheck>, RuleFileError> {
        Ok(Some(match name {
            "key-min-length" => KeyCheck::LengthMin(self.count(name, value, 1, LENGTH_MAX)?),
            "key-max-length" => KeyCheck::LengthMax(self.count(name, value, 1, LENGTH_MAX)?),
            "key-charset" => {
                let written = self.string(name, value)?;
                let set = Charset::parse(written)
                    .map_err(|found| self.error(value.span(), name, found, charset::EXPECTED))?;
                KeyCheck::Charset(set)
            }
            "key-pattern" => KeyCheck::Pattern(self.regex(name, value)?),
            "reserved" => {
                let words = self.texts(name, value)?;
                let reserved = |word: &str| match word.strip_suffix('*') {
                    Some(prefix) => Reserved::Prefix(prefix.to_owned()),
                    None => Reserved::Word(word.to_owned()),
                };
                KeyCheck::Reserved(words.into_iter().map(reserved).collect())
            }
            _ => return Ok(None),
        }))
    }

    fn value_check(
        &self,
        name: &str,
        value: &Value<'_>,
    ) -> Result<Option<ValueCheck>, RuleFileError> {
        Ok(Some(match name {
            "value-max-size" => ValueCheck::SizeMax(self.size(name, value)?),
            "value-types" => {
                let allowed = "media types such as \"application/json\", \"text/*\" or \"*/*\"";
                let read = |written: &str| {
                    MediaRange::parse(written).ok_or_else(|| self.wrong(name, value, allowed))
                };
                let written = self.texts(name, value)?;
                ValueCheck::Types(written.into_iter().map(read).collect::<Result<_, _>>()?)
            }
            "value-json-type" => {
                let allowed = "object, array, string, number, boolean or null, or a list of them";
                let read = |written: &str| {
                    KINDS
                        .iter()
                        .find(|(known, _)| *known == written)
                        .map(|(_, kind)| *kind)
                        .ok_or_else(|| self.wrong(name, value, allowed))
                };
                let written = match value.get_ref() {
                    DeValue::String(one) => vec![one.as_ref()],
                    DeValue::Array(_) => self.texts(name, value)?,
                    _ => return Err(self.wrong(name, value, allowed)),
                };
                ValueCheck::JsonType(written.into_iter().map(read).collect::<Result<_, _>>()?)
            }
            "value-max-depth" => {
                let depth: usize = self.count(name, value, 0, u64::from(u16::MAX))?;
                ValueCheck::DepthMax(u32::try_from(depth).unwrap_or(u32::MAX))
            }
            "value-max-members" => ValueCheck::MembersMax(self.count(name, value, 0, COUNT_MAX)?),
            "value-duplicate-members" => ValueCheck::Duplicates(self.choice(
                name,
                value,
                &[("allow", false), ("deny", true)],
            )?),
            "value-numbers" => ValueCheck::Numbers(self.choice(
                name,
                value,
                &[("any", false), ("i-json", true)],
            )?),
            "value-forbidden-members" => {
                let names = self.texts(name, value)?;
                ValueCheck::Forbidden(names.into_iter().map(str::to_owned).collect())
            }
            "value-deny" => ValueCheck::Deny(self.filters(name, value)?),
            "value-require" => ValueCheck::Require(self.filters(name, value)?),
            "value-schema" => self.schema(name, value, self.string(name, value)?)?,
            "value-schema-file" => {
                let path = self.text_of(name, value)?;
                let text = (self.read)(path).map_err(|error| {
                    let found = format!("a file that cannot be read ({error})");
                    self.error(value.span(), name, found, "a file with a JSON Schema")
                })?;
                self.schema(name, value, &text)?
            }
            _ => return Ok(None),
        }))
    }

    fn schema(
        &self,
        name: &str,
        value: &Value<'_>,
        text: &str,
    ) -> Result<ValueCheck, RuleFileError> {
        let allowed =
            "a JSON Schema (draft 4 to 2020-12) whose references stay within it, of at most 1 MiB";
        Schema::compile(text)
            .map(|schema| ValueCheck::Schema(Box::new(schema)))
            .map_err(|found| self.error(value.span(), name, found, allowed))
    }

    fn filters(&self, name: &str, value: &Value<'_>) -> Result<Vec<Filter>, RuleFileError> {
        let allowed = "a list of tables with pointer, regex or both, or with pointer and equals";
        let Some(items) = value.get_ref().as_array() else {
            return Err(self.wrong(name, value, allowed));
        };
        let mut filters = Vec::with_capacity(items.len());
        for item in items {
            let Some(parts) = item.get_ref().as_table() else {
                return Err(self.wrong(name, item, allowed));
            };
            let mut filter = Filter {
                pointer: None,
                regex: None,
                equals: None,
            };
            for (key, part) in parts {
                let inner = format!("{name}.{}", key.get_ref());
                match key.get_ref().as_ref() {
                    "pointer" => {
                        let pointer = Pointer::parse(self.string(&inner, part)?);
                        filter.pointer = Some(pointer.map_err(|found| {
                            let allowed = "an RFC 6901 pointer such as \"/user/name\"";
                            self.error(part.span(), &inner, found, allowed)
                        })?);
                    }
                    "regex" => filter.regex = Some(self.regex(&inner, part)?),
                    "equals" => filter.equals = Some(self.scalar(&inner, part)?),
                    _ => {
                        let known = "pointer, regex or equals";
                        return Err(self.error(key.span(), &inner, "an unknown key", known));
                    }
                }
            }
            let alone =
                filter.pointer.is_none() && (filter.regex.is_none() || filter.equals.is_some());
            if alone {
                return Err(self.error(
                    item.span(),
                    name,
                    "a filter that names no place and no text",
                    allowed,
                ));
            }
            filters.push(filter);
        }
        Ok(filters)
    }

    fn scalar(&self, name: &str, value: &Value<'_>) -> Result<Scalar, RuleFileError> {
        let scalar = match value.get_ref() {
            DeValue::String(text) => Some(Scalar::Text(text.to_string())),
            DeValue::Boolean(on) => Some(Scalar::Boolean(*on)),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(Scalar::Integer),
            DeValue::Float(float) => float.as_str().parse().ok().map(Scalar::Float),
            _ => None,
        };
        scalar.ok_or_else(|| self.wrong(name, value, "a string, number or boolean"))
    }

    /// A rule that no key can pass is a mistake in the rule.
    fn not_hopeless(&self, place: Range<usize>, rule: &Compiled) -> Result<(), RuleFileError> {
        let Scope::Prefix(prefix) = &rule.scope else {
            return Ok(());
        };
        for check in &rule.key_checks {
            let hopeless = match check {
                KeyCheck::LengthMax(max) => prefix.len() > *max,
                KeyCheck::Charset(set) => set.stranger(prefix).is_some(),
                _ => false,
            };
            if hopeless {
                let found = format!("a rule that every key beginning with \"{prefix}\" breaks");
                let allowed = "a rule that some key can keep; it is about the whole key";
                return Err(self.error(place, check.setting(), found, allowed));
            }
        }
        Ok(())
    }

    fn regex(&self, name: &str, value: &Value<'_>) -> Result<regex::Regex, RuleFileError> {
        filter::compile(self.string(name, value)?).map_err(|found| {
            let allowed = format!(
                "a regular expression of at most {} bytes, without look-around and back-references",
                filter::PATTERN_BYTES_MAX
            );
            self.error(value.span(), name, found, allowed)
        })
    }

    fn string<'v>(&self, name: &str, value: &'v Value<'_>) -> Result<&'v str, RuleFileError> {
        value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.wrong(name, value, "a string"))
    }

    /// A string that says something, and not too much.
    fn text_of<'v>(&self, name: &str, value: &'v Value<'_>) -> Result<&'v str, RuleFileError> {
        let text = self.string(name, value)?;
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            let allowed = format!("a string of 1 to {TEXT_BYTES_MAX} bytes");
            let found = format!("a string of {} bytes", text.len());
            return Err(self.error(value.span(), name, found, allowed));
        }
        Ok(text)
    }

    fn texts<'v>(&self, name: &str, value: &'v Value<'_>) -> Result<Vec<&'v str>, RuleFileError> {
        match value.get_ref().as_array() {
            Some(items) if !items.is_empty() && items.len() <= RULES_MAX => {
                items.iter().map(|item| self.text_of(name, item)).collect()
            }
            _ => Err(self.wrong(name, value, "a list of 1 to 1000 strings")),
        }
    }

    fn choice<T: Copy>(
        &self,
        name: &str,
        value: &Value<'_>,
        choices: &[(&str, T)],
    ) -> Result<T, RuleFileError> {
        let written = value.get_ref().as_str();
        let choice = choices.iter().find(|(known, _)| Some(*known) == written);
        choice.map(|(_, meant)| *meant).ok_or_else(|| {
            let known: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
            self.wrong(name, value, &format!("one of {}", known.join(", ")))
        })
    }

    fn count(
        &self,
        name: &str,
        value: &Value<'_>,
        min: u64,
        max: u64,
    ) -> Result<usize, RuleFileError> {
        integer(value)
            .filter(|count| (min..=max).contains(count))
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| {
                let allowed = format!("a whole number from {min} to {max}");
                self.wrong(name, value, &allowed)
            })
    }

    fn size(&self, name: &str, value: &Value<'_>) -> Result<usize, RuleFileError> {
        let size = match value.get_ref() {
            DeValue::String(text) => size(text),
            _ => integer(value),
        };
        size.filter(|size| (1..=COUNT_MAX).contains(size))
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| {
                let allowed = "a size from 1 to 1GiB, in bytes or such as \"4KiB\" or \"1MB\"";
                self.wrong(name, value, allowed)
            })
    }

    /// What stands at `value` is not what could.
    fn wrong(&self, name: &str, value: &Value<'_>, allowed: &str) -> RuleFileError {
        let span = value.span();
        let written = self.text.get(span.clone()).unwrap_or_default();
        let found = match value.get_ref() {
            DeValue::Table(_) => "a table".to_owned(),
            _ if written.len() > 60 || written.contains('\n') => {
                format!("another {}", value.get_ref().type_str())
            }
            _ => written.to_owned(),
        };
        self.error(span, name, found, allowed)
    }

    fn unknown(&self, key: &Spanned<std::borrow::Cow<'_, str>>) -> RuleFileError {
        let found = key.get_ref();
        let near = KEYS.iter().min_by_key(|known| distance(found, known));
        let allowed = match near {
            Some(near) if distance(found, near) * 3 <= near.len() => format!("{near}, perhaps"),
            _ => format!("one of {}", KEYS.join(", ")),
        };
        self.error(key.span(), found, "an unknown key", allowed)
    }

    fn error(
        &self,
        span: Range<usize>,
        key: &str,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> RuleFileError {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        RuleFileError {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            key: key.to_owned(),
            found: found.into(),
            allowed: allowed.into(),
        }
    }
}

fn integer(value: &Value<'_>) -> Option<u64> {
    let integer = value.get_ref().as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// `512`, `4KiB`, `1MB`: powers of two with an `i`, powers of ten without.
fn size(written: &str) -> Option<u64> {
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = written.split_at(digits);
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// Edits from one word to another (Levenshtein), to guess what a misspelt key meant.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, character) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
