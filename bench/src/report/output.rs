//! A finished document on its way out: files, summary, and the comparison with an earlier one.

use std::path::{Path, PathBuf};

use crate::cli::Output;
use crate::environment::Environment;
use crate::error::Error;
use crate::report::Document;
use crate::report::text::Summary;

/// Reads the baseline before anything is measured, so that a wrong one is known at once: one of another format, or of
/// another machine than this.
pub(crate) fn baseline(
    output: &Output,
    name: &str,
    here: &Environment,
) -> Result<Option<Document>, Error> {
    let saved = saved(output, name);
    let path = match &output.baseline {
        Some(path) => path,
        None if saved.is_file() => &saved,
        None => return Ok(None),
    };
    let document = Document::read(path)?;
    here.demand_same_machine(&document.environment)?;
    Ok(Some(document))
}

/// Writes `NAME.json` and `NAME.html`, prints the summary, and says where the page is.
pub(crate) fn publish(
    document: &Document,
    name: &str,
    output: &Output,
    baseline: Option<&Document>,
    json: bool,
) -> Result<(), Error> {
    document.write(&output.out, name, baseline)?;
    if output.save_baseline {
        let path = saved(output, name);
        std::fs::copy(output.out.join(name).with_extension("json"), &path)
            .map_err(Error::io(format!("writing {}", path.display())))?;
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(document).expect("a document is plain data")
        );
        return Ok(());
    }
    println!("{}", Summary { document, baseline });
    if baseline.is_some() {
        println!("(+ better, ! worse, = within 5 % of the baseline)");
    }
    let page = Path::new(&output.out).join(name).with_extension("html");
    let page = page.canonicalize().unwrap_or(page);
    println!("{}", page.display());
    Ok(())
}

fn saved(output: &Output, name: &str) -> PathBuf {
    output.out.join(format!("baseline-{name}.json"))
}
