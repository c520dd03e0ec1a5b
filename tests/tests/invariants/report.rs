//! What `scripts/house.sh` prints: how the house stands, for whoever wants to make it smaller.

use crate::{circles, names, sizes, tree};

#[test]
#[ignore = "prints a report; scripts/house.sh runs it"]
#[allow(clippy::print_stdout, reason = "a report")]
fn house() {
    let sources = tree::sources();
    println!("files over {} lines:", sizes::LINES);
    sizes::large().iter().for_each(|(n, path)| println!("  {n:5} {path}"));
    let mut counts: Vec<usize> = sources.iter().map(|(_, text)| text.lines().count()).collect();
    counts.sort_unstable();
    println!("  {} files, median {} lines", counts.len(), counts[counts.len() / 2]);
    println!("\n{} lines over 120 columns", sizes::long().len());
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
