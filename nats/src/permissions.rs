//! What each role may say and hear on NATS: one account, a user for each role, and no more than the contract of `subjects` needs.
//!
//! Buckets are named, because their number is fixed. The log's streams are not: a name is one token, which a wildcard cannot divide, and
//! a later generation has others. So a role that reads the log may read any stream but the buckets that are not its own, which are denied
//! by name; nobody may delete or purge one. `channel` and the persister may make streams, as `provision` may: who finds that the log has
//! lost its end begins a new generation.
//!
//! Answers come to inboxes that only their role may hear. Who answers may publish to any inbox of those who ask: their names cannot be
//! guessed, and `allow_responses` would make nats-server note each message that a reader of the log gets.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    lost_end,
    subjects::{self, any},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatsRole {
    Edge,
    Channel,
    Persister,
    Provision,
    Doctor,
}

/// Patterns of subjects. What is denied is so although it is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    pub publish: Vec<String>,
    pub deny: Vec<String>,
    pub subscribe: Vec<String>,
}

/// What a role does with a bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Nothing,
    Read,
    /// Read, and hear of changes.
    Watch,
}

/// The beginning of the subjects that answers come to.
pub(crate) fn inbox(role: Option<NatsRole>) -> String {
    role.map_or_else(|| "_INBOX".to_owned(), |role| format!("_INBOX_{}", role.name()))
}

/// True: the server said that this user may not do that. It is logged.
pub(crate) fn denied(said: &str) -> bool {
    let denied = said.to_ascii_lowercase().contains("permissions violation");
    if denied {
        metrics::counter!("natterjack_nats_denied_total").increment(1);
        tracing::error!(
            said,
            "nats-server does not let this user; compare its permissions with `natterjack provision --print-permissions`"
        );
    }
    denied
}

impl NatsRole {
    pub const ALL: [Self; 5] = [Self::Edge, Self::Channel, Self::Persister, Self::Provision, Self::Doctor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Channel => "channel",
            Self::Persister => "persister",
            Self::Provision => "provision",
            Self::Doctor => "doctor",
        }
    }

    /// For an installation with so many shards.
    pub fn permissions(self, kv_shards: u32) -> Permissions {
        let own = format!("{}.>", inbox(Some(self)));
        let mut p = Permissions { publish: self.says(kv_shards), deny: Vec::new(), subscribe: self.hears() };
        p.publish.push(own.clone());
        p.subscribe.push(own);
        p.publish.push(any::stream_info());
        for bucket in buckets(kv_shards) {
            let stream = subjects::bucket_stream(&bucket);
            match self.uses(&bucket) {
                Use::Nothing => p.deny.extend(any::reads_of(&stream)),
                Use::Read => p.publish.push(any::get(&stream)),
                Use::Watch => p.publish.extend([any::get(&stream), any::watch(&stream)]),
            }
        }
        if self != Self::Doctor {
            p.publish.extend([any::get("*"), any::get_direct("*")]);
        }
        match self {
            // Of the log an edge asks for one message or page.
            Self::Edge | Self::Doctor => p.publish.extend(any::pull()),
            Self::Channel | Self::Persister => {
                p.publish.push(any::read_on());
                p.publish.extend(any::pull());
                p.publish.extend(any::make_streams());
            }
            Self::Provision => p.publish.extend(any::make_streams()),
        }
        p
    }

    fn uses(self, bucket: &str) -> Use {
        match (self, bucket) {
            (Self::Provision | Self::Doctor, subjects::CONTROL) => Use::Read,
            (_, subjects::CONTROL) | (Self::Edge | Self::Doctor, subjects::LEASES) => Use::Watch,
            (Self::Provision | Self::Doctor, _) => Use::Nothing,
            (Self::Edge, subjects::ROLES) | (_, subjects::LEASES) => Use::Nothing,
            _ => Use::Read,
        }
    }

    /// Besides the interface of JetStream.
    fn says(self, kv_shards: u32) -> Vec<String> {
        let state = (0..kv_shards).flat_map(|s| [subjects::groups_bucket(s), subjects::users_bucket(s)]);
        let state = state.map(|bucket| subjects::bucket_key(&bucket, ">"));
        let key = subjects::bucket_key;
        let answers = |role| format!("{}.>", inbox(Some(role)));
        let said = |subjects: &[&str]| subjects.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Edge => [
                said(&[any::CHAT, any::CTL, any::LIVE_USER_X, any::LIVE_GROUP_X, any::HEADS, subjects::HISTORY, subjects::DIRECTORY]),
                vec![key(subjects::LEASES, subjects::EDGE_KEYS)],
            ]
            .concat(),
            Self::Channel => [
                said(&[any::LIVE_USER_E, any::LIVE_GROUP_E, subjects::BEATS, subjects::HISTORY, subjects::DIRECTORY]),
                self.keeps(),
                generations(),
                state.collect(),
                vec![answers(Self::Edge)],
            ]
            .concat(),
            Self::Persister => [
                said(&[any::LIVE_USER_X]),
                self.keeps(),
                generations(),
                [subjects::SIGNING_KEYS, subjects::REVOKED, any::NOTHING_BEFORE, subjects::LAST_BACKUP]
                    .map(|keys| key(subjects::CONTROL, keys))
                    .into(),
                state.collect(),
                vec![answers(Self::Edge), answers(Self::Channel), answers(Self::Doctor)],
            ]
            .concat(),
            // And of those who read the log it forgets one that was stopped for good.
            Self::Provision => [generations(), vec![key(subjects::CONTROL, subjects::LOG_READERS)]].concat(),
            // What was lost.
            Self::Doctor => said(&[subjects::LOSSES]),
        }
    }

    /// Who reads the log: its leases, its positions, and its name among the readers.
    fn keeps(self) -> Vec<String> {
        vec![
            subjects::bucket_key(subjects::ROLES, &any::role_keys(self.name())),
            subjects::bucket_key(subjects::CONTROL, &any::position_keys(self.name())),
            subjects::bucket_key(subjects::CONTROL, subjects::LOG_READERS),
        ]
    }

    fn hears(self) -> Vec<String> {
        let heard: &[&str] = match self {
            Self::Edge => &[any::LIVE_USER, any::LIVE_GROUP, subjects::BEATS],
            Self::Channel => &[any::HEADS],
            Self::Persister => &[subjects::HISTORY, subjects::LOSSES, subjects::DIRECTORY],
            Self::Provision | Self::Doctor => &[],
        };
        heard.iter().map(|s| (*s).to_owned()).collect()
    }
}

/// What makes one generation end and another begin, and where it is noted that one lost its end, or how far its clock was.
fn generations() -> Vec<String> {
    let control = |key: &str| subjects::bucket_key(subjects::CONTROL, key);
    vec![any::END.to_owned(), control(subjects::LAYOUT_KEY), control(&any::position_keys(lost_end::NOTE)), control(any::CLOCKS)]
}

fn buckets(kv_shards: u32) -> Vec<String> {
    let shards = (0..kv_shards).flat_map(|s| [subjects::groups_bucket(s), subjects::users_bucket(s)]);
    [subjects::CONTROL, subjects::ROLES, subjects::LEASES].map(str::to_owned).into_iter().chain(shards).collect()
}

/// For the `authorization` block of nats-server: a variable for each role.
pub fn nats_server(kv_shards: u32) -> String {
    let mut out = String::from(
        "# What each role of Natterjack may do on NATS. Made by `natterjack provision --print-permissions`; make it anew with each version.\n\
         # In the configuration of every nats-server, beside this file, with passwords of your own (or nkey: instead of user: and password:):\n\
         #\n\
         #   authorization {\n\
         #       include \"natterjack-permissions.conf\"\n\
         #       users: [\n",
    );
    for role in NatsRole::ALL {
        let (name, variable) = (role.name(), role.name().to_uppercase());
        let _ = writeln!(out, "#           {{ user: {name}, password: \"...\", permissions: ${variable} }}");
    }
    out.push_str("#       ]\n#   }\n");
    for role in NatsRole::ALL {
        let Permissions { publish, deny, subscribe } = role.permissions(kv_shards);
        let _ = write!(out, "\n{}: {{\n    publish: {{\n", role.name().to_uppercase());
        list(&mut out, "allow", &publish);
        list(&mut out, "deny", &deny);
        out.push_str("    }\n    subscribe: {\n");
        list(&mut out, "allow", &subscribe);
        out.push_str("    }\n}\n");
    }
    out
}

fn list(out: &mut String, name: &str, subjects: &[String]) {
    // An empty list would mean: everything.
    if subjects.is_empty() {
        return;
    }
    let _ = writeln!(out, "        {name}: [");
    for subject in subjects {
        let _ = writeln!(out, "            \"{subject}\"");
    }
    out.push_str("        ]\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut p, mut s) = (pattern.split('.'), subject.split('.'));
        loop {
            match (p.next(), s.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(a), Some(b)) if a == "*" || a == b => {}
                _ => return false,
            }
        }
    }

    fn may(role: NatsRole, subject: &str) -> bool {
        let p = role.permissions(2);
        let any = |patterns: &[String]| patterns.iter().any(|p| matches(p, subject));
        any(&p.publish) && !any(&p.deny)
    }

    fn hears(role: NatsRole, subject: &str) -> bool {
        role.permissions(2).subscribe.iter().any(|p| matches(p, subject))
    }

    fn only(who: &[NatsRole], subject: &str) {
        for role in NatsRole::ALL {
            assert_eq!(may(role, subject), who.contains(&role), "{role:?} on {subject}");
        }
    }

    use NatsRole::{Channel, Doctor, Edge, Persister, Provision};

    #[test]
    fn who_may_say_what() {
        let thread = "dm.a.b".parse().unwrap();
        only(&[Edge], &subjects::chat(7, 3, &thread));
        only(&[Edge], &subjects::ctl(7, 3, &thread));
        only(&[Channel, Persister, Provision], &subjects::end(7, 3));
        let (user, group) = (&"a".parse().unwrap(), &"g".parse().unwrap());
        only(&[Channel], &subjects::live_user(user));
        only(&[Channel], &subjects::live_group(group));
        only(&[Channel], &subjects::beat(3));
        only(&[Edge, Persister], &subjects::live_user_x(user));
        only(&[Edge], &subjects::live_group_x(group));
        only(&[Edge], &subjects::heads(7, 3));
        only(&[Edge, Channel], subjects::HISTORY);
        only(&[Doctor], subjects::LOSSES);
        only(&[Edge, Channel], subjects::DIRECTORY);
        let key = subjects::bucket_key;
        only(&[Channel, Persister], &key(&subjects::groups_bucket(1), "g"));
        only(&[Channel, Persister], &key(&subjects::users_bucket(0), &subjects::threads_key(user)));
        only(&[Channel, Persister, Provision], &key(subjects::CONTROL, subjects::LAYOUT_KEY));
        only(&[Channel, Persister, Provision], &key(subjects::CONTROL, &subjects::position_key(lost_end::NOTE, 7, 3)));
        only(&[Channel, Persister, Provision], &key(subjects::CONTROL, &subjects::clock_key(7, 3)));
        only(&[Channel, Persister, Provision], &key(subjects::CONTROL, subjects::LOG_READERS));
        only(&[Persister], &key(subjects::CONTROL, &subjects::signing_key("k")));
        only(&[Persister], &key(subjects::CONTROL, &subjects::revoked_key("f")));
        only(&[Persister], &key(subjects::CONTROL, &subjects::nothing_before(7)));
        only(&[Channel], &key(subjects::CONTROL, &subjects::position_key("channel", 7, 3)));
        only(&[Persister], &key(subjects::ROLES, &subjects::role_key("persister", 7, 3)));
        only(&[Edge], &key(subjects::LEASES, &subjects::edge_key("e")));
        only(&[], "anything.else");
    }

    #[test]
    fn streams_are_made_by_some_and_deleted_by_nobody() {
        for verb in ["DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN"] {
            only(&[], &format!("$JS.API.STREAM.{verb}.CHAT-1-0"));
        }
        for verb in ["CREATE", "UPDATE"] {
            only(&[Channel, Persister, Provision], &format!("$JS.API.STREAM.{verb}.CHAT-1-0"));
        }
        only(&[], "$JS.API.CONSUMER.DURABLE.CREATE.CHAT-1-0.x");
        only(&[Channel, Persister], "$JS.API.CONSUMER.CREATE.CHAT-7-3.r1");
    }

    #[test]
    fn a_bucket_is_read_by_those_that_use_it() {
        let get = |bucket: &str| any::get(&subjects::bucket_stream(bucket));
        let watch = |bucket: &str| format!("$JS.API.CONSUMER.CREATE.{}.r1.$KV.{bucket}.x", subjects::bucket_stream(bucket));
        only(&[Channel, Persister], &get(subjects::ROLES));
        only(&[], &watch(subjects::ROLES));
        only(&[Edge, Doctor], &get(subjects::LEASES));
        only(&[Edge, Doctor], &watch(subjects::LEASES));
        only(&[Edge, Channel, Persister], &get(&subjects::users_bucket(1)));
        only(&NatsRole::ALL, &get(subjects::CONTROL));
        only(&[Edge, Channel, Persister], &watch(subjects::CONTROL));
        // Also not by a reader of the log, whose permission has a wildcard for the stream.
        only(&[], "$JS.API.CONSUMER.CREATE.KV_leases.r1");
    }

    #[test]
    fn answers_are_heard_by_who_asked() {
        for role in NatsRole::ALL {
            for other in NatsRole::ALL {
                assert_eq!(hears(role, &format!("{}.x.1", inbox(Some(other)))), role == other);
            }
            assert!(!hears(role, "_INBOX.x.1") && !hears(role, "chat.1.0.dm.a.b") && !hears(role, "$KV.users-0.a.threads"));
        }
        assert!(may(Persister, "_INBOX_edge.x.1") && may(Channel, "_INBOX_edge.x.1") && !may(Edge, "_INBOX_channel.x.1"));
        assert!(hears(Edge, "live.user.a.e") && !hears(Persister, "live.user.a.e") && hears(Channel, "svc.channel.heads.1.0"));
        assert!(hears(Persister, subjects::DIRECTORY) && !hears(Edge, subjects::DIRECTORY));
        assert!(!hears(Doctor, "beat.0"));
    }
}
