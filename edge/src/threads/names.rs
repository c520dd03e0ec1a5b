//! Names of groups for lists: kept by their newest control entry, for a group of 500 is in 500 lists.

use std::{collections::HashMap, sync::Arc, time::Duration};

use natterjack_protocol::{GroupId, MsgId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::people::People;

/// A control entry that is not in the log any more cannot be told by its id: so long is a name taken for true.
const KEPT: Duration = Duration::from_secs(60);
/// Names that are kept: some 10 MB.
const MOST: usize = 50_000;

struct KeptName {
    at: Instant,
    /// The last control entry that is in it.
    version: MsgId,
    name: String,
}

#[derive(Clone)]
pub struct GroupNames {
    people: People,
    kept: Arc<Mutex<HashMap<GroupId, KeptName>>>,
}

impl GroupNames {
    pub fn new(people: &People) -> Self {
        Self { people: people.clone(), kept: Arc::default() }
    }

    /// `control`: the newest control entry of the group, 0 if the log has none; none: not known. None: the name cannot
    /// be read now.
    pub async fn name(&self, group: &GroupId, control: Option<MsgId>) -> Option<String> {
        if let Some(control) = control
            && let Some(kept) = self.kept.lock().get(group)
            && kept.version >= control
            && kept.at.elapsed() < KEPT
        {
            return Some(kept.name.clone());
        }
        let state = self.people.group(group).await.ok()??;
        let mut all = self.kept.lock();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(group.clone(), KeptName { at: Instant::now(), version: state.version, name: state.name.clone() });
        Some(state.name)
    }
}
