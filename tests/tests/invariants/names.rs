//! A type's name means one thing in the whole workspace.

use crate::tree::{none, types};

/// Each crate has its own, and nobody uses another's without its crate's name.
const OF_EACH_CRATE: [&str; 3] = ["Config", "Error", "Metrics"];

#[test]
fn each_type_has_a_name_of_its_own() {
    let found = several().into_iter().map(|(name, files)| format!("{name}: {}", files.join(" "))).collect();
    none("names of several types (rename those of your room by what each is)", found);
}

/// Names and the files that declare a type under each.
pub fn several() -> Vec<(String, Vec<String>)> {
    let named = types().into_iter().filter(|(name, files)| files.len() > 1 && !OF_EACH_CRATE.contains(&name.as_str()));
    named.map(|(name, files)| (name, files.into_iter().collect())).collect()
}
