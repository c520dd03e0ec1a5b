//! What `scripts/house.sh` prints: how the house stands, for whoever wants to make it smaller.

use crate::{circles, documents, names, tree};

const LARGE: usize = 350;

#[test]
#[ignore = "prints a report; scripts/house.sh runs it"]
#[allow(clippy::print_stdout, reason = "a report")]
fn house() {
    let sources = tree::sources();
    println!("files over {LARGE} lines:");
    let mut large: Vec<_> =
        sources.iter().map(|(path, text)| (text.lines().count(), path)).filter(|(n, _)| *n > LARGE).collect();
    large.sort_by(|a, b| b.cmp(a));
    large.iter().for_each(|(n, path)| println!("  {n:5} {path}"));
    let mut counts: Vec<usize> = sources.iter().map(|(_, text)| text.lines().count()).collect();
    counts.sort_unstable();
    println!("  {} files, median {} lines", counts.len(), counts[counts.len() / 2]);
    let long = documents::long_comments();
    println!("\n{} comment lines over 120 columns in {} files", long.iter().map(|(_, n)| n).sum::<usize>(), long.len());
    println!("\nnames of several types:");
    names::several().iter().for_each(|(name, files)| println!("  {name:20} {}", files.join(" ")));
    println!("\ncircles between rooms of a crate:");
    circles::circles().iter().for_each(|circle| println!("  {circle}"));
    println!("\nspans:");
    for (path, text) in tree::shipped() {
        let spans =
            tree::code(&text).filter(|(_, l)| ["_span!(", "#[instrument", "instrument("].iter().any(|s| l.contains(s)));
        spans.for_each(|(n, line)| println!("  {path}:{n} {}", line.trim()));
    }
}
