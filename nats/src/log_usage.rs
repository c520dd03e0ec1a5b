//! How much of what the log may hold is used. A full log refuses sends, so this is to be known before.

use crate::{
    layout::Layout,
    subjects,
    wire::{
        client::Nats,
        jetstream::{self, JsError},
    },
};

/// Of the partition that is the fullest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogUsage {
    pub p: u32,
    pub used: u64,
    pub max: u64,
}

impl LogUsage {
    /// None: the log has no limit of bytes.
    pub async fn of(nats: &Nats, layout: &Layout) -> Result<Option<Self>, JsError> {
        let mut fullest: Option<Self> = None;
        for p in 0..layout.partitions {
            let Some(info) = jetstream::stream_info(nats, &subjects::stream(layout.generation, p)).await? else {
                continue;
            };
            let Ok(max @ 1..) = u64::try_from(info.config.max_bytes) else { continue };
            let one = Self { p, used: info.state.bytes, max };
            fullest = fullest.into_iter().chain([one]).max_by_key(Self::percent);
        }
        Ok(fullest)
    }

    pub fn percent(&self) -> u64 {
        self.used.saturating_mul(100) / self.max.max(1)
    }

    /// What is wrong and what to do, from 80 % on.
    pub fn check(&self) -> Result<String, String> {
        let Self { p, used, max } = self;
        let text = format!(
            "partition {p} is the fullest, with {} % of {} MiB ({} MiB)",
            self.percent(),
            max >> 20,
            used >> 20
        );
        if self.percent() < 80 {
            return Ok(text);
        }
        Err(format!(
            "{text}; a full log refuses sends: raise nats.max_bytes and run `natterjack provision` (nats-server needs \
             the disk for it), or keep \
             the log for fewer hours (times.log_max_age_hours)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_fills_is_named_with_what_to_do() {
        let room = |used| LogUsage { p: 3, used, max: 100 << 20 };
        assert!(room(79 << 20).check().unwrap().contains("79 % of 100 MiB"));
        let why = room(80 << 20).check().unwrap_err();
        assert!(
            why.contains("partition 3") && why.contains("nats.max_bytes") && why.contains("log_max_age_hours"),
            "{why}"
        );
    }
}
