//! A type's name means one thing in the whole workspace.

use std::collections::BTreeSet;

use crate::tree::{only_listed, types};

/// Each crate has its own, and nobody uses another's without its crate's name.
const OF_EACH_CRATE: [&str; 3] = ["Config", "Error", "Metrics"];

/// Names that still mean several things. The list may only become shorter.
const KNOWN: &[&str] = &["Entry", "Event", "Login", "Options", "RefreshToken", "Store", "StoreError", "Synced"];

#[test]
fn each_type_has_a_name_of_its_own() {
    let found: BTreeSet<String> = several().into_iter().map(|(name, _)| name).collect();
    only_listed("names of several types (rename those of your room by what each is)", &found, KNOWN);
}

/// Names and the files that declare a type under each.
pub fn several() -> Vec<(String, Vec<String>)> {
    let named = types().into_iter().filter(|(name, files)| files.len() > 1 && !OF_EACH_CRATE.contains(&name.as_str()));
    named.map(|(name, files)| (name, files.into_iter().collect())).collect()
}
