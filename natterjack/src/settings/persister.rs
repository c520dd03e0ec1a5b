//! `[cql]`, `[accounts]` and `[external]`: where the archive is, and whose accounts count.

use std::time::Duration;

use natterjack_persister::{
    directory::RegistrationRule,
    external::{External, KeySource},
    store::{
        accounts::PASSWORD,
        cql::{Consistency, CqlConfig},
    },
};
use natterjack_protocol::internal::claims::ISSUER;
use natterjack_runtime::config::Loader;

use super::{path, text, urls};

/// None: no servers are named.
pub(super) fn cql(l: &mut Loader) -> Option<CqlConfig> {
    let cfg = CqlConfig {
        contact_points: l.get("cql.contact_points"),
        keyspace: l.checked("cql.keyspace", |s: String| {
            let plain = !s.is_empty() && s.len() <= 48 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if plain { Ok(s) } else { Err("1 to 48 letters, digits and _".to_owned()) }
        }),
        user: text(l, "cql.user"),
        password: text(l, "cql.password"),
        replication: l
            .checked("cql.replication", |n: u32| if (1..=9).contains(&n) { Ok(n) } else { Err("1 to 9".to_owned()) }),
        consistency: l.checked("cql.consistency", |s: String| {
            Consistency::parse(&s).ok_or("local_quorum, quorum or one".to_owned())
        }),
        local_dc: text(l, "cql.local_dc"),
        ..CqlConfig::default()
    };
    (!cfg.contact_points.is_empty()).then_some(cfg)
}

pub(super) fn registration(l: &mut Loader, external: bool) -> RegistrationRule {
    l.checked("accounts.registration", |s: String| match s.as_str() {
        "" if external => Ok(RegistrationRule::Closed),
        "" | "open" => Ok(RegistrationRule::Open),
        "invite" => Ok(RegistrationRule::Invite),
        "closed" => Ok(RegistrationRule::Closed),
        _ => Err(format!("{s:?} is none of \"open\", \"invite\" and \"closed\"")),
    })
}

pub(super) fn days(n: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(n * 86_400.0).map_err(|_| format!("{n} is no number of days: 0 or more"))
}

/// None: no issuer is named.
pub(super) fn external(l: &mut Loader) -> Option<External> {
    let issuer = l.checked("external.issuer", |s: String| {
        // Reserved: the issuers of our own accounts.
        if [PASSWORD, ISSUER].contains(&s.as_str()) { Err(format!("{s:?} is reserved by Natterjack")) } else { Ok(s) }
    });
    let audience: String = l.get("external.audience");
    let url = l.checked("external.jwks_url", urls::keys_url);
    let file = l.checked("external.jwks_file", path);
    let subject_claim =
        l.checked(
            "external.subject_claim",
            |s: String| if s.is_empty() { Err("a claim must be named".to_owned()) } else { Ok(s) },
        );
    let name_claim = text(l, "external.name_claim");
    if issuer.is_empty() {
        if !audience.is_empty() || url.is_some() || file.is_some() {
            l.refuse("external.issuer", "is missing: other keys of [external] are set");
        }
        return None;
    }
    if audience.is_empty() {
        l.refuse("external.audience", "is missing: without it tokens for other applications would be accepted");
    }
    let keys = match (url, file) {
        (Some(url), None) => KeySource::Url(url),
        (None, Some(file)) => KeySource::File(file),
        _ => {
            l.refuse("external.jwks_url", "one of external.jwks_url and external.jwks_file must be set");
            return None;
        }
    };
    Some(External { issuer, audience, keys, subject_claim, name_claim })
}
