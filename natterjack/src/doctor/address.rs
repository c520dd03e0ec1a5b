//! The address that clients are told, and whether it can be reached.

use natterjack_protocol::client::address::Reach;

use crate::settings::Settings;

pub fn of_clients(settings: &Settings) -> Result<String, String> {
    let listens = [settings.edge.listen.ip(), settings.up.host];
    let for_others = listens.iter().find(|ip| !matches!(Reach::of(**ip), Reach::Loopback));
    match (&settings.edge.url, for_others) {
        (Some(url), Some(ip)) if is_ours_alone(url) => Err(format!(
            "edge.url is {url}, which every other machine resolves to itself, and edges listen on {ip} for other \
             machines: \
             no client can follow it; set edge.url to the name that clients use, or leave it empty"
        )),
        (Some(url), _) => Ok(format!("clients are told to connect to {url} (edge.url)")),
        (None, Some(ip)) => Ok(format!(
            "clients are told the address they connected to (listening on {ip}); behind a proxy set edge.url, or name \
             the proxy in \
             limits.trusted_proxies"
        )),
        (None, None) => Ok("only clients on this machine: edges listen on loopback".into()),
    }
}

fn is_ours_alone(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|u| Reach::of_host(u.host_str()?));
    host.is_none_or(|reach| reach <= Reach::Link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(flags: &[(&str, &str)]) -> Result<String, String> {
        of_clients(&Settings::of(flags).unwrap())
    }

    #[test]
    fn an_address_that_nobody_can_use_is_named_with_what_to_do() {
        for listen in [("edge.listen", "0.0.0.0:8080"), ("up.host", "::"), ("edge.listen", "10.0.0.1:8080")] {
            let why = told(&[listen, ("edge.url", "ws://127.0.0.1:8080")]).unwrap_err();
            assert!(
                why.contains("ws://127.0.0.1:8080") && why.contains("set edge.url") && why.contains("leave it empty"),
                "{why}"
            );
            assert!(
                told(&[listen, ("edge.url", "wss://chat.example.org")]).unwrap().contains("wss://chat.example.org")
            );
            assert!(told(&[listen]).unwrap().contains("trusted_proxies"));
        }
        assert!(told(&[("edge.url", "ws://127.0.0.1:8080")]).is_ok());
        assert!(told(&[]).unwrap().contains("only clients on this machine"));
    }
}
