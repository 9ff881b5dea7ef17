//! Settings found by their names, also by misspelt ones.

use super::{SETTINGS, Setting};

/// The row of that name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The name of a setting closest to a misspelt one, if any is close.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase().replace(['_', '.'], "-");
    SETTINGS
        .iter()
        .map(|setting| (edits(&wanted, setting.name), setting.name))
        .min()
        .filter(|(edits, candidate)| edits * 3 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance: single characters inserted, removed or replaced to make one name of the other.
fn edits(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (above, wanted) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, found) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(wanted != found);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
