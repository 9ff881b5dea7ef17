//! What was measured, as one document: figures and charts in sections, with the machine they belong to.
//!
//! Every suite writes the same shape, so that one page shows them all and any two documents of one machine can be
//! compared figure by figure.

pub(crate) mod chart;
pub(crate) mod compare;
pub(crate) mod output;
mod page;
pub(crate) mod text;
pub(crate) mod unit;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::Error;
use crate::report::chart::Chart;
use crate::report::unit::Unit;

/// Counts up when a reader of older documents would misread a newer one.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) format: u32,
    /// What the page is headed with.
    pub(crate) title: String,
    pub(crate) environment: Environment,
    /// What the run was asked to be, by name.
    pub(crate) settings: Vec<(String, String)>,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    pub(crate) seconds: f64,
    pub(crate) sections: Vec<Section>,
}

/// One benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What was done, in a sentence or two.
    pub(crate) about: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) charts: Vec<Chart>,
    /// What a reader should know before believing a figure.
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Unique in its section, and lasting: comparisons go by it.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    /// Shown in the summary.
    pub(crate) headline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// It says something, but no way is the better one.
    Neither,
}

impl Section {
    pub(crate) fn new(name: &str, title: &str, about: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            about: about.into(),
            ..Self::default()
        }
    }

    pub(crate) fn figure(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: Unit,
        better: Better,
    ) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            better,
            headline: false,
        });
    }

    /// A figure for the summary.
    pub(crate) fn headline(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: Unit,
        better: Better,
    ) {
        self.figure(name, value, unit, better);
        if let Some(figure) = self.figures.last_mut() {
            figure.headline = true;
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Document {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let text = fs::read(path).map_err(Error::io(format!("reading {}", path.display())))?;
        let head: Head = serde_json::from_slice(&text).map_err(|_| {
            Error::Usage(format!(
                "{} is no report of this program; `cargo xtask bench` writes one",
                path.display()
            ))
        })?;
        if head.format != FORMAT {
            return Err(Error::Usage(format!(
                "{} has format {}, this program reads {FORMAT}; write it anew with `cargo xtask bench`",
                path.display(),
                head.format
            )));
        }
        serde_json::from_slice(&text).map_err(|error| {
            Error::Usage(format!(
                "{} is damaged ({error}); write it anew with `cargo xtask bench`",
                path.display()
            ))
        })
    }

    /// Writes `NAME.json` and `NAME.html` into the folder.
    pub(crate) fn write(
        &self,
        folder: &Path,
        name: &str,
        baseline: Option<&Document>,
    ) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(Error::io(format!("creating {}", folder.display())))?;
        let write = |extension: &str, text: &str| {
            let path = folder.join(name).with_extension(extension);
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))
        };
        let json = serde_json::to_string_pretty(self).expect("a document is plain data");
        write("json", &json)?;
        write("html", &page::render(self, baseline))
    }
}
