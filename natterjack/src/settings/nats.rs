//! `[nats]`: servers, one login, and the shape of the log.

use natterjack_nats::NatsConfig;
use natterjack_runtime::config::Loader;

use super::{path, text};

pub(super) fn nats(l: &mut Loader) -> NatsConfig {
    let cfg = NatsConfig {
        urls: l.checked(
            "nats.urls",
            |urls: Vec<String>| if urls.is_empty() { Err("at least one URL".to_owned()) } else { Ok(urls) },
        ),
        user: text(l, "nats.user"),
        password: text(l, "nats.password"),
        token: text(l, "nats.token"),
        nkey: l.checked("nats.nkey", path),
        creds: l.checked("nats.creds", path),
        tls: natterjack_nats::TlsFiles {
            ca: l.checked("nats.tls.ca", path),
            certificate: l.checked("nats.tls.certificate", path),
            key: l.checked("nats.tls.key", path),
            required: l.get("nats.tls.required"),
            first: l.get("nats.tls.first"),
        },
        name: l.get("nats.name"),
        connect_deadline_ms: l.get("nats.connect_deadline_ms"),
        replicas: l.checked(
            "nats.replicas",
            |n: usize| if matches!(n, 1 | 3 | 5) { Ok(n) } else { Err("1, 3 or 5".to_owned()) },
        ),
        partitions: l.checked("nats.partitions", |n: u32| {
            if (1..=1024).contains(&n) { Ok(n) } else { Err("1 to 1024".to_owned()) }
        }),
        kv_shards: l.checked("nats.kv_shards", |n: u32| {
            if (1..=1024).contains(&n) { Ok(n) } else { Err("1 to 1024".to_owned()) }
        }),
        max_bytes: l.checked("nats.max_bytes", |n: i64| {
            if n >= 0 { Ok((n > 0).then_some(n)) } else { Err("0 or more".to_owned()) }
        }),
        ..NatsConfig::default()
    };
    match (&cfg.tls.certificate, &cfg.tls.key) {
        (Some(_), None) => l.refuse("nats.tls.key", "is missing: nats.tls.certificate is set"),
        (None, Some(_)) => l.refuse("nats.tls.certificate", "is missing: nats.tls.key is set"),
        _ => {}
    }
    let ways = [cfg.user.is_some(), cfg.token.is_some(), cfg.nkey.is_some(), cfg.creds.is_some()];
    if ways.into_iter().filter(|set| *set).count() > 1 {
        l.refuse(
            "nats.user",
            "only one of nats.user, nats.token, nats.nkey and nats.creds may be set: a connection logs in with one of \
             them",
        );
    }
    cfg
}
